// With `?report=models` the page downloads models from an unreliable server (`tests/src/unreliable.rs`), and asks one of them.
// Everything is done through the page's own controls.
//
// The server stalls in the middle of a chunk twice. The first time the download is stopped with its button; the second time
// the page is reloaded, as if it had been killed.

import { at } from './dom.js';

// A model with a manifest, one without, and the question for the first.
const MODEL = new URL('model/', location.href).href;
const PLAIN = new URL('plain/', location.href).href;
const PICTURE = 'model-picture.png';
const QUESTION = 'Is it a shirt?';
// The chunks of the largest file in which the server stalls.
const STOPPED = 3;
const KILLED = 4;

const LIMIT = 120_000;
const STEP = 20;

// Key of the result from before the reload.
const PHASE = 'models-run';

export async function modelsRun(page) {
  at('another').open = true;
  if (sessionStorage.getItem(PHASE) === null) {
    sessionStorage.setItem(PHASE, JSON.stringify(await downloadInPart(page)));
    location.reload();
    // The reloaded page continues.
    await new Promise(() => {});
  }
  const before = JSON.parse(sessionStorage.getItem(PHASE));
  page.say('Resuming after the reload.');
  const resumed = await downloadRest();
  page.say('Downloading a model without a manifest.');
  const plain = await downloadAndDelete();
  page.say('Asking.');
  await press('Use', MODEL);
  await until('the model to be loaded', () => at('demo-note').hidden);
  const picture = await fetch(PICTURE);
  await page.openOwn(new File([await picture.blob()], PICTURE));
  await page.ask(QUESTION);
  const { done: { answer, answer_ids, tokens, device, dtype } } = page.last();
  return { ...before, resumed, plain, answer, answer_ids, tokens, device, dtype };
}

// Checks the address, downloads, stops, resumes, and returns in the middle of the download.
async function downloadInPart(page) {
  await look(MODEL);
  const needed = at('candidate-needs').innerText;
  const middle = await middles();
  at('download').click();
  page.say('Downloading.');
  await until('the first stall', () => at('downloaded').value > middle(STOPPED));
  at('leave').click();
  await until('the status "Stopped"', () => at('model-status').textContent.startsWith('Stopped'));
  await until('the model in the list', () => button('Resume', MODEL));
  const stopped = entry(MODEL).textContent;
  await press('Resume', MODEL);
  page.say('Stopped, then resumed.');
  await until('the second stall', () => at('downloaded').value > middle(KILLED));
  return { needed, stopped };
}

// The share of the model with a quarter of a chunk of its largest file, which comes last: the server sends half of the chunk.
async function middles() {
  const { chunk, files } = await (await fetch(`${MODEL}fovea.json`)).json();
  const sizes = files.map(({ size }) => size);
  const total = sizes.reduce((sum, size) => sum + size, 0);
  return (index) => (total - Math.max(...sizes) + (index + 0.25) * chunk) / total;
}

async function downloadRest() {
  await until('the model in the list', () => button('Resume', MODEL));
  const left = entry(MODEL).textContent;
  await press('Resume', MODEL);
  await until('all of it', () => button('Use', MODEL));
  return left;
}

async function downloadAndDelete() {
  await look(PLAIN);
  at('download').click();
  await until('a whole model', () => button('Use', PLAIN));
  const kept = entry(PLAIN).textContent;
  await press('Delete', PLAIN);
  await until('it to be gone', () => !entry(PLAIN));
  return kept;
}

async function look(address) {
  at('address').value = address;
  at('from').requestSubmit();
  await until('what is needed', () => !at('candidate').hidden && !at('shelf').disabled);
}

async function press(act, url) {
  await until(`a button: ${act}`, () => button(act, url));
  button(act, url).click();
}

// The list names models without the scheme and the last slash.
const named = (url) => url.replace(/^https?:\/\//, '').replace(/\/$/, '');
const entry = (url) => [...at('kept').children].find((item) => item.firstChild.textContent === named(url));
// A button that can be pressed.
const button = (act, url) => {
  const buttons = at('shelf').disabled ? [] : [...entry(url)?.querySelectorAll('button') ?? []];
  return buttons.find((found) => found.textContent === act);
};

async function until(what, holds) {
  for (let waited = 0; !holds(); waited += STEP) {
    if (waited > LIMIT) {
      const status = `${at('model-status').textContent} ${at('downloaded-is').textContent}`;
      throw new Error(`expected ${what} within ${LIMIT / 1000} s, got the status: ${status}`);
    }
    await new Promise((resolve) => { setTimeout(resolve, STEP); });
  }
}
