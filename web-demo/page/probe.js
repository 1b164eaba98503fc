// Tells of one token on the drawing of what was looked at: the one under the pointer, or the one that the keys came to.
//
// Arrow keys go to the next token that way, Page Up and Page Down to the next more and less important one, Home and End to
// the most and the least important, Escape to none.

import { at } from './dom.js';
import { visualTokens } from './tokens.js';

// What was looked at, its tokens on the picture, and of these the one that is told.
let looked = null;
let tokens = [];
let current = null;
// Where the arrow keys go along: where they last came to across their way.
let track = [0, 0];

const [layer, mark, words] = [at('probe'), at('mark'), at('token')];

// Shows tokens of what was looked at now; null stands for nothing. One that is still there stays the current one.
export function probe(now) {
  const index = current?.index;
  looked = now;
  tokens = now ? visualTokens(now).filter(({ rect }) => rect) : [];
  tell(tokens.find((token) => token.index === index) ?? null);
}

// Puts the layer over the picture of the drawing, which may have grown.
export function place() {
  const image = at('overlay');
  if (!looked || layer.hidden || !image.naturalWidth) return;
  const scale = Math.min(image.clientWidth / image.naturalWidth, image.clientHeight / image.naturalHeight);
  const [width, height] = looked.drawn.map((side) => side * scale);
  // The picture is drawn in the middle, its drawing lies in the middle of its element.
  layer.style.left = `${image.offsetLeft + (image.clientWidth - width) / 2}px`;
  layer.style.top = `${image.offsetTop + (image.clientHeight - image.naturalHeight * scale) / 2}px`;
  layer.style.width = `${width}px`;
  layer.style.height = `${height}px`;
}

function tell(token) {
  current = token;
  mark.hidden = !token;
  words.textContent = token ? described(token) : '';
  if (!token) return;
  const [width, height] = looked.picture;
  const [left, top, right, bottom] = token.rect;
  mark.style.left = `${100 * left / width}%`;
  mark.style.top = `${100 * top / height}%`;
  mark.style.width = `${100 * (right - left) / width}%`;
  mark.style.height = `${100 * (bottom - top) / height}%`;
  mark.dataset.kept = String(token.kept);
}

// A token as a sentence. Patches are counted from 1, as people do.
function described({ index, box, rect, scale, importance, rank, kept }) {
  const [y0, x0, y1, x1] = box;
  const [left, top, right, bottom] = rect.map(Math.round);
  const from = (first, last) => (last - first > 1 ? `s ${first + 1} to ${last}` : ` ${last}`);
  const all = looked.tokens.vision;
  const sum = looked.importance.reduce((total, each) => total + each, 0);
  return [
    `Token ${index + 1} of ${all}, ${kept ? 'kept' : 'dropped'}: patch row${from(y0, y1)}, column${from(x0, x1)}`,
    `(pixels ${left} to ${right} across, ${top} to ${bottom} down),`,
    scale ? `scale ${scale},` : 'not pooled,',
    rank ? `importance ${share(importance / sum)}, rank ${rank} of ${all}.` : 'importance unknown without the text-guided sampler.',
  ].join(' ');
}

const share = (part) => `${(100 * part).toPrecision(2)} %`;

// Where an event is, in the picture's pixels.
function pixel({ clientX, clientY }) {
  const { left, top, width, height } = layer.getBoundingClientRect();
  return [(clientX - left) / width * looked.picture[0], (clientY - top) / height * looked.picture[1]];
}

const over = ([x, y]) => tokens.find(({ rect: [left, top, right, bottom] }) => left <= x && x < right && top <= y && y < bottom);

const middle = ([left, top, right, bottom]) => [(left + right) / 2, (top + bottom) / 2];

// The nearest token from the current one on, along an axis (0: across, 1: down), forwards or backwards, that the track
// goes through.
function next(axis, way) {
  const across = 1 - axis;
  const edge = way > 0 ? current.rect[axis + 2] : current.rect[axis];
  // Rectangles are told in hundredths of a pixel.
  const distance = ({ rect }) => way * ((way > 0 ? rect[axis] : rect[axis + 2]) - edge) + 0.02;
  const ahead = tokens.filter((token) => {
    const { rect } = token;
    return token !== current && distance(token) >= 0 && rect[across] <= track[across] && track[across] < rect[across + 2];
  });
  return ahead.sort((a, b) => distance(a) - distance(b))[0];
}

// The token `by` places less important than the current one. Without importance they are in their order.
function ranked(by) {
  const order = [...tokens].sort((a, b) => (a.rank ?? a.index) - (b.rank ?? b.index));
  const from = current ? order.indexOf(current) : -1;
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
    tell(null);
    return;
  }
  const go = KEYS[event.key];
  if (!go || tokens.length === 0 || event.ctrlKey || event.altKey || event.metaKey) return;
  event.preventDefault();
  const arrow = event.key.startsWith('Arrow');
  if (!current) {
    tell(ranked(-Infinity));
    track = middle(current.rect);
    return;
  }
  const found = go();
  if (!found) return;
  tell(found);
  // Along an arrow's way the track stays, as a text cursor's column does.
  const axis = ['ArrowLeft', 'ArrowRight'].includes(event.key) ? 0 : 1;
  const [x, y] = middle(found.rect);
  track = arrow ? track.map((old, each) => (each === axis ? [x, y][axis] : old)) : [x, y];
});

layer.addEventListener('focus', () => {
  if (current || tokens.length === 0 || !layer.matches(':focus-visible')) return;
  tell(ranked(-Infinity));
  track = middle(current.rect);
});
layer.addEventListener('blur', () => tell(null));

for (const kind of ['pointermove', 'pointerdown']) {
  layer.addEventListener(kind, (event) => {
    if (!looked) return;
    const found = over(pixel(event)) ?? null;
    if (found === current) return;
    tell(found);
    if (found) track = middle(found.rect);
  });
}
layer.addEventListener('pointerleave', () => {
  if (document.activeElement !== layer) tell(null);
});

new ResizeObserver(place).observe(at('overlay'));
