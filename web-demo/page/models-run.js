// Under `?report=models` the page downloads models by itself, from a server that behaves badly on purpose
// (`tests/src/unreliable.rs`), and asks one of them: for tests in real browsers. All is done as a reader would do it.
//
// The server holds a download back in the middle of a chunk, twice: at first it is stopped by its button, then the page
// is loaded anew, as if it had been killed.

import { at } from './dom.js';

// Where it has a manifest, and where it has none; what is asked of the first.
const MODEL = new URL('model/', location.href).href;
const PLAIN = new URL('plain/', location.href).href;
const PICTURE = 'model-picture.png';
const QUESTION = 'Is it a shirt?';
// The chunks of the largest file in whose middle the server holds back.
const STOPPED = 3;
const KILLED = 4;

const LIMIT = 120_000;
const STEP = 20;

// What an earlier life of this page left.
const PHASE = 'models-run';

export async function modelsRun(page, tasks) {
  at('another').open = true;
  if (sessionStorage.getItem(PHASE) === null) {
    sessionStorage.setItem(PHASE, JSON.stringify(await downloadInPart(page)));
    location.reload();
    // The next life goes on from here.
    await new Promise(() => {});
  }
  const before = JSON.parse(sessionStorage.getItem(PHASE));
  page.say('The page is back, and goes on.');
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
  return { ...before, resumed, plain, answer, answer_ids, tokens, device, dtype, long_tasks: tasks() };
}

// Looks, downloads, stops, goes on, and is in the middle of it when it ends.
async function downloadInPart(page) {
  await look(MODEL);
  const needed = at('candidate-needs').innerText;
  const middle = await middles();
  at('download').click();
  page.say('Downloading.');
  await until('the first stall', () => at('downloaded').value > middle(STOPPED));
  at('leave').click();
  await until('a word that it stopped', () => at('model-status').textContent.startsWith('Stopped'));
  await until('the model in the list', () => button('Go on', MODEL));
  const stopped = entry(MODEL).textContent;
  await press('Go on', MODEL);
  page.say('Stopped, and going on.');
  await until('the second stall', () => at('downloaded').value > middle(KILLED));
  return { needed, stopped };
}

// What share of the model is there with a quarter of a chunk of its largest, and so last, file: the server sends half.
async function middles() {
  const { chunk, files } = await (await fetch(`${MODEL}fovea.json`)).json();
  const sizes = files.map(({ size }) => size);
  const total = sizes.reduce((sum, size) => sum + size, 0);
  return (index) => (total - Math.max(...sizes) + (index + 0.25) * chunk) / total;
}

async function downloadRest() {
  await until('the model in the list', () => button('Go on', MODEL));
  const left = entry(MODEL).textContent;
  await press('Go on', MODEL);
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
      const told = `${at('model-status').textContent} ${at('downloaded-is').textContent}`;
      throw new Error(`The run expected ${what}, and waits in vain. The page says: ${told}`);
    }
    await new Promise((resolve) => { setTimeout(resolve, STEP); });
  }
}
