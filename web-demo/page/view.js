// Shows the picture, or the attention overlay in its place, and the overlays of a comparison.

import { at, make } from './dom.js';
import { place, probe } from './probe.js';

const [plain, looked] = [at('show-picture'), at('show-overlay')];
// Whether details of the overlay's tokens are available.
let detailed = false;
for (const choice of [plain, looked]) choice.addEventListener('change', swap);

// Shows another picture, and removes the overlay.
export async function showPicture(blob, words) {
  await put(at('picture'), blob, words);
  at('frame').style.setProperty('--aspect', at('picture').naturalWidth / at('picture').naturalHeight || 1);
  at('save').removeAttribute('href');
  detailed = false;
  probe(null);
  looked.disabled = true;
  plain.checked = true;
  swap();
}

// Sets the overlay, with data about its tokens if they are known (`seen`: see `Looked` in fovea.d.ts). Shows it if it is the
// first one for this picture.
export async function showOverlay(png, words, seen = null) {
  await put(at('overlay'), png, words);
  at('save').href = at('overlay').src;
  if (looked.disabled) {
    looked.disabled = false;
    looked.checked = true;
  }
  detailed = seen !== null;
  probe(seen);
  swap();
}

// Shows overlays side by side: { png, caption, words } each.
export async function showOverlays(overlays) {
  at('overlays').replaceChildren(...await Promise.all(overlays.map(async ({ png, caption, words }) => {
    const image = make('img');
    await put(image, png, words);
    // The decoded picture stays.
    URL.revokeObjectURL(image.src);
    return make('figure', {}, image, make('figcaption', {}, caption));
  })));
}

function swap() {
  at('picture').hidden = looked.checked;
  for (const id of ['overlay', 'legend']) at(id).hidden = !looked.checked;
  for (const id of ['probe', 'token', 'hint']) at(id).hidden = !looked.checked || !detailed;
  place();
}

// Puts a picture into an element, and waits until it is decoded. If the browser can't show it, the alternative text remains.
async function put(image, blob, words) {
  const old = image.src;
  image.src = URL.createObjectURL(blob);
  image.alt = words;
  await image.decode().catch(() => {});
  if (old) URL.revokeObjectURL(old);
}
