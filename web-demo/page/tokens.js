// What was looked at, token by token: where each visual token lies, how finely its region was cut, and what became of it.

// All visual tokens, the thumbnail's first (see `VisualToken` in fovea.d.ts).
export function visualTokens({ map, window, scales, choice, thumbnail, boxes, rects, importance, kept }) {
  const ranks = ranked(importance);
  const stays = new Set(kept);
  const across = Math.ceil(map[1] / window);
  const scaleOf = ([y, x]) => scales[choice[Math.floor(y / window) * across + Math.floor(x / window)]] ?? null;
  return Array.from({ length: thumbnail + boxes.length }, (_, index) => {
    const box = boxes[index - thumbnail] ?? null;
    const rect = rects[index - thumbnail] ?? null;
    return {
      index,
      part: box === null ? 'thumbnail' : box[1] < map[1] ? 'map' : 'newline',
      box,
      rect,
      scale: rect && scaleOf(box),
      importance: importance[index] ?? null,
      rank: ranks[index] ?? null,
      kept: stays.has(index),
    };
  });
}

// The place of each value, 1 for the largest; of equal ones the first is before the others, as for the sampler.
function ranked(values) {
  const order = values.map((_, index) => index).sort((a, b) => values[b] - values[a] || a - b);
  const ranks = [];
  order.forEach((index, place) => { ranks[index] = place + 1; });
  return ranks;
}
