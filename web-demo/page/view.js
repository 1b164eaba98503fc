// The picture, and in its place what the model looked at.

import { at } from './dom.js';
import { place, probe } from './probe.js';

const [plain, looked] = [at('show-picture'), at('show-overlay')];
// Whether the tokens of the drawing can be told.
let told = false;
for (const choice of [plain, looked]) choice.addEventListener('change', swap);

// Shows another picture; what was looked at on the last one is gone.
export async function showPicture(blob, words) {
  await put(at('picture'), blob, words);
  at('frame').style.setProperty('--aspect', at('picture').naturalWidth / at('picture').naturalHeight || 1);
  at('save').removeAttribute('href');
  told = false;
  probe(null);
  looked.disabled = true;
  plain.checked = true;
  swap();
}

// Shows a drawing of what was `seen`, whose tokens can be asked for where that is told (see `Looked` in fovea.d.ts); turns to
// it where it is the first time for this picture.
export async function showOverlay(png, words, seen = null) {
  await put(at('overlay'), png, words);
  at('save').href = at('overlay').src;
  if (looked.disabled) {
    looked.disabled = false;
    looked.checked = true;
  }
  told = seen !== null;
  probe(seen);
  swap();
}

function swap() {
  at('picture').hidden = looked.checked;
  for (const id of ['overlay', 'legend']) at(id).hidden = !looked.checked;
  for (const id of ['probe', 'token', 'hint']) at(id).hidden = !looked.checked || !told;
  place();
}

// A picture in an element, once the browser has decoded it. One that it can't show stays a frame with its words.
async function put(image, blob, words) {
  const old = image.src;
  image.src = URL.createObjectURL(blob);
  image.alt = words;
  await image.decode().catch(() => {});
  if (old) URL.revokeObjectURL(old);
}
