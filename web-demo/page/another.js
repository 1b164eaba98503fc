// Models other than the demo's: a folder, read where it is, or an address, from which the browser keeps the files. What a
// model needs is told before anything is downloaded.

import { at, make } from './dom.js';
import { gpu } from './gpu.js';
import { picked } from './models.js';
import { needs, showNeeds } from './needs.js';
import { size, wait } from './numbers.js';
import { Store } from './store.js';

const store = new Store();
let use;
let running = null;
// Bytes from which a model is not loaded before its user has seen what it needs.
const LARGE = 2 ** 30;
// The address that was looked at last.
let seen = '';

// Wires the section. `choose` is given the model to use, { name, files }, or null for the demo's. Returns what takes a promise
// of a model, such as one that was dropped.
export function another(choose) {
  use = choose;
  at('another').addEventListener('toggle', showKept);
  at('folder').addEventListener('change', () => {
    take(picked(at('folder').files));
    // So that the same folder can be picked again.
    at('folder').value = '';
  });
  at('from').addEventListener('submit', (event) => {
    event.preventDefault();
    alone((signal) => look(at('address').value, signal));
  });
  at('download').addEventListener('click', () => alone((signal) => download(seen, signal)));
  at('leave').addEventListener('click', () => running?.abort());
  return take;
}

function say(sentence, kind = '') {
  at('model-status').textContent = sentence;
  at('model-status').dataset.kind = kind;
}

function complain(why) {
  if (why?.name === 'AbortError') say('Stopped. What has come is kept.');
  else say(why?.message ?? String(why), 'fail');
}

// Does one thing while nothing else can be begun. What is kept is shown anew after it.
async function alone(work) {
  if (running) {
    say('Wait until this is done, or stop it.');
    return;
  }
  const before = document.activeElement;
  running = new AbortController();
  at('shelf').disabled = true;
  say('');
  try {
    await work(running.signal);
  } catch (why) {
    complain(why);
  }
  running = null;
  await showKept();
  at('shelf').disabled = false;
  if ([at('leave'), document.body].includes(document.activeElement)) {
    const back = at('shelf').contains(before) ? before : at('another').querySelector('summary');
    back.focus();
  }
  at('under-way').hidden = true;
}

// Shows that something is under way, how far as a share where that is known, and in words.
function goes(words, share) {
  // Whoever pressed a button of the shelf finds the one to stop.
  const focus = document.activeElement;
  const lost = at('under-way').hidden && (focus === document.body || at('shelf').contains(focus));
  at('under-way').hidden = false;
  if (lost) at('leave').focus();
  if (share === undefined) at('downloaded').removeAttribute('value');
  else at('downloaded').value = share;
  at('downloaded-is').textContent = words;
}

// Shows what a model needs. Returns whether it fits, as far as a browser can say.
async function show(words, model) {
  const rows = needs(await gpu(), model);
  showNeeds(at('candidate-needs'), at('candidate-todo'), rows);
  at('candidate-needs').caption.textContent = words;
  at('candidate').hidden = false;
  return rows.every(({ fits = true }) => fits);
}

// Uses a model whose files are here.
function take(promised) {
  at('another').open = true;
  return alone(async (signal) => {
    goes('Looking at the files.');
    const { name, files } = await promised;
    at('candidate').hidden = true;
    const weights = await store.weigh(files, { signal });
    const fits = await show(`What ${name} needs`, { weights });
    at('download').hidden = true;
    at('load').hidden = true;
    if (!fits) {
      say(`${name} does not fit, so it is not loaded.`, 'fail');
      return;
    }
    if (weights.all * 2 < LARGE) {
      use({ name, files });
      return;
    }
    // Reading this much takes a while: the table is read first.
    at('load').hidden = false;
    at('load').onclick = () => {
      at('load').hidden = true;
      use({ name, files });
    };
    say(`${name} is large. Load it where the table above says that it fits.`);
  });
}

// Looks at what lies under an address.
async function look(address, signal) {
  goes('Looking at what is there.');
  // What an earlier look found is not what is asked about now.
  at('candidate').hidden = true;
  const { url, missing, weights } = await store.survey(address, { signal });
  seen = url;
  await show(`What ${nameOf(url)} needs`, { weights, missing, room: await store.room() });
  at('download').textContent = missing > 0 ? `Download ${size(missing)}` : 'All of it is here: check it';
  at('download').hidden = false;
  at('load').hidden = true;
}

// Downloads what is missing of a model, and checks what is here of it.
async function download(url, signal) {
  at('candidate').hidden = true;
  goes('Looking at what is there.');
  await store.download(url, {
    signal,
    onProgress({ stage, name, there, total, rate, eta }) {
      const words = [`${size(there)} of ${size(total)}`];
      if (rate !== null) words.push(`${size(rate)} a second`, `${wait(eta)} left`);
      goes(`${stage === 'checking' ? 'Checking' : 'Fetching'} ${name}: ${words.join(', ')}`, there / total);
    },
  });
  say(`All of ${nameOf(url)} is here.`);
}

// What is kept, and what can be done with it.
async function showKept() {
  // Where nothing can be kept there is still the demo model to go back to.
  const models = await store.list().catch(() => []);
  at('kept').replaceChildren(
    entry('The demo model', 'part of this page', [['Use', () => use(null)]]),
    ...models.map(({ url, total, there, whole }) => {
      const name = nameOf(url);
      const load = async () => use({ name, files: await store.files(url) });
      const fetch = (signal) => download(url, signal);
      const forget = async () => {
        await store.remove(url);
        say(`${name} is deleted.`);
      };
      return whole
        ? entry(name, size(total), [['Use', load], ['Check', fetch], ['Delete', forget]])
        : entry(name, `${size(there)} of ${size(total)}`, [['Go on', fetch], ['Delete', forget]]);
    }),
  );
}

function entry(name, words, acts) {
  const buttons = acts.map(([act, work]) => {
    const button = make('button', { type: 'button', ariaLabel: `${act}: ${name}` }, act);
    button.addEventListener('click', () => alone(work));
    return button;
  });
  return make('li', {}, make('span', {}, name), make('span', { className: 'soft' }, words), ...buttons);
}

// An address as people call it.
const nameOf = (url) => url.replace(/^https?:\/\//, '').replace(/\/(resolve\/main\/)?$/, '');
