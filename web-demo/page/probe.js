// Shows the details of one token on the attention overlay, selected with the pointer or the keyboard.
//
// Arrow keys move to the next token in that direction, Page Up and Page Down to the next more and less important one, Home and
// End to the most and the least important one. Escape deselects.

import { at, make } from './dom.js';

// The overlay's data (`Looked`), the rectangles of its tokens on the picture ({ token, rect }), and the selected one of them. A
// merged token has several.
let looked = null;
let spots = [];
let current = null;
// The point on which the arrow keys move, like the column of a text cursor.
let track = [0, 0];

const [layer, words] = [at('probe'), at('token')];

// Sets the overlay's data, or null. A token that still exists stays selected.
export function probe(now) {
  const index = current?.token.index;
  looked = now;
  spots = now ? now.visual_tokens.flatMap((token) => token.rects.map((rect) => ({ token, rect }))) : [];
  select(spots.find(({ token }) => token.index === index) ?? null);
}

// Places the layer over the picture in the overlay image, whose size may have changed.
export function place() {
  const image = at('overlay');
  if (!looked || layer.hidden || !image.naturalWidth) return;
  const scale = Math.min(image.clientWidth / image.naturalWidth, image.clientHeight / image.naturalHeight);
  const [width, height] = looked.drawn.map((side) => side * scale);
  // The picture is centred in the image, and the image in its element.
  layer.style.left = `${image.offsetLeft + (image.clientWidth - width) / 2}px`;
  layer.style.top = `${image.offsetTop + (image.clientHeight - image.naturalHeight * scale) / 2}px`;
  layer.style.width = `${width}px`;
  layer.style.height = `${height}px`;
}

function select(spot) {
  current = spot;
  words.textContent = spot ? described(spot) : '';
  // The selected rectangle is first.
  const others = spots.filter((other) => other.token === spot?.token && other !== spot);
  layer.replaceChildren(...(spot ? [spot, ...others] : []).map(marked));
}

// A mark on the picture.
function marked({ token, rect: [left, top, right, bottom] }) {
  const [width, height] = looked.picture;
  const mark = make('div', { className: 'mark' });
  mark.style.left = `${100 * left / width}%`;
  mark.style.top = `${100 * top / height}%`;
  mark.style.width = `${100 * (right - left) / width}%`;
  mark.style.height = `${100 * (bottom - top) / height}%`;
  mark.dataset.kept = String(token.kept);
  return mark;
}

// A token in words. Patches are counted from 1.
function described({ token, rect }) {
  const { index, boxes, rects, scale, importance, rank, kept } = token;
  const [left, top, right, bottom] = rect.map(Math.round);
  const from = (first, last) => (last - first > 1 ? `s ${first + 1} to ${last}` : ` ${last}`);
  // A box in the padding has no rectangle, and it is unknown which one that is.
  const box = boxes.length === rects.length ? boxes[rects.indexOf(rect)] : null;
  const patches = box ? `patch row${from(box[0], box[2])}, column${from(box[1], box[3])} ` : '';
  const all = looked.tokens.compressed;
  const made = boxes.length > 1 ? `merged from ${boxes.length} places,` : 'not pooled,';
  return [
    `Token ${index + 1} of ${all}, ${kept ? 'kept' : 'dropped'}: ${patches}(pixels ${left} to ${right} across, ${top} to ${bottom} down),`,
    scale ? `scale ${scale},` : made,
    rank ? `importance ${share(importance)}, rank ${rank} of ${all}.` : 'importance unknown, because nothing was dropped inside the model.',
  ].join(' ');
}

const share = (part) => `${(100 * part).toPrecision(2)} %`;

// The position of an event, in pixels of the picture.
function pixel({ clientX, clientY }) {
  const { left, top, width, height } = layer.getBoundingClientRect();
  return [(clientX - left) / width * looked.picture[0], (clientY - top) / height * looked.picture[1]];
}

const over = ([x, y]) => spots.find(({ rect: [left, top, right, bottom] }) => left <= x && x < right && top <= y && y < bottom);

const middle = ([left, top, right, bottom]) => [(left + right) / 2, (top + bottom) / 2];

// The nearest rectangle after the selected one along an axis (0: horizontal, 1: vertical), forwards (`way` 1) or backwards (-1),
// that contains the track.
function next(axis, way) {
  const across = 1 - axis;
  const edge = way > 0 ? current.rect[axis + 2] : current.rect[axis];
  // Rectangles are rounded to hundredths of a pixel.
  const distance = ({ rect }) => way * ((way > 0 ? rect[axis] : rect[axis + 2]) - edge) + 0.02;
  const ahead = spots.filter((spot) => {
    const { rect } = spot;
    return spot !== current && distance(spot) >= 0 && rect[across] <= track[across] && track[across] < rect[across + 2];
  });
  return ahead.sort((a, b) => distance(a) - distance(b))[0];
}

// The token `by` ranks below the selected one. Without importance, tokens are in their own order.
function ranked(by) {
  const order = spots.filter(({ token, rect }) => token.rects[0] === rect)
    .sort(({ token: a }, { token: b }) => (a.rank ?? a.index) - (b.rank ?? b.index));
  const from = order.findIndex(({ token }) => token === current?.token);
  return order[Math.min(Math.max(from + by, 0), order.length - 1)];
}

const KEYS = {
  ArrowLeft: () => next(0, -1),
  ArrowRight: () => next(0, 1),
  ArrowUp: () => next(1, -1),
  ArrowDown: () => next(1, 1),
  PageUp: () => ranked(-1),
  PageDown: () => ranked(1),
  Home: () => ranked(-Infinity),
  End: () => ranked(Infinity),
};

layer.addEventListener('keydown', (event) => {
  if (event.key === 'Escape') {
    select(null);
    return;
  }
  const go = KEYS[event.key];
  if (!go || spots.length === 0 || event.ctrlKey || event.altKey || event.metaKey) return;
  event.preventDefault();
  const arrow = event.key.startsWith('Arrow');
  if (!current) {
    select(ranked(-Infinity));
    track = middle(current.rect);
    return;
  }
  const found = go();
  if (!found) return;
  select(found);
  // An arrow key changes the track only along its own axis.
  const axis = ['ArrowLeft', 'ArrowRight'].includes(event.key) ? 0 : 1;
  const [x, y] = middle(found.rect);
  track = arrow ? track.map((old, each) => (each === axis ? [x, y][axis] : old)) : [x, y];
});

layer.addEventListener('focus', () => {
  if (current || spots.length === 0 || !layer.matches(':focus-visible')) return;
  select(ranked(-Infinity));
  track = middle(current.rect);
});
layer.addEventListener('blur', () => select(null));

for (const kind of ['pointermove', 'pointerdown']) {
  layer.addEventListener(kind, (event) => {
    if (!looked) return;
    const found = over(pixel(event)) ?? null;
    if (found === current) return;
    select(found);
    if (found) track = middle(found.rect);
  });
}
layer.addEventListener('pointerleave', () => {
  if (document.activeElement !== layer) select(null);
});

new ResizeObserver(place).observe(at('overlay'));
