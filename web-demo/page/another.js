// The section "Another model": a local folder, which is read in place, or a repository on the Hugging Face hub or an address,
// from which the browser downloads and keeps the files. It shows what a model needs before anything is loaded or downloaded.

import { loading } from './answering.js';
import { at, make } from './dom.js';
import { HUB, repositoryOf } from './hub.js';
import { picked } from './models.js';
import { gpu, needs, showNeeds } from './needs.js';
import { size, wait } from './numbers.js';
import { PUBLISHED } from './published.js';
import { Store } from './store.js';

export const store = new Store();
let use;
// The name of the open folder, which is in no list of the browser.
let folder = null;
let running = null;
// From this size in bytes, the user must confirm that a model is loaded.
const LARGE = 2 ** 30;
// The last checked address.
let seen = '';

// Connects the section to the page. `choose` is called with the model to use, { name, files }, or null for the demo model.
// Returns a function that accepts a promise of a model, such as a dropped one.
export function another(choose) {
  use = (model) => {
    folder = model && !model.url ? model.name : null;
    choose(model);
  };
  at('another').addEventListener('toggle', showKept);
  // What is shown was computed for another choice.
  for (const id of ['weights', 'memory']) at(id).addEventListener('change', () => { at('candidate').hidden = true; });
  at('published').replaceChildren(...PUBLISHED.map(published));
  at('folder').addEventListener('change', () => {
    take(picked(at('folder').files));
    // Allows the same folder to be picked again.
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
  if (why?.name === 'AbortError') say('Stopped. What is downloaded is kept.');
  else say(why?.message ?? String(why), 'fail');
}

// Runs one piece of work; the other controls are disabled meanwhile. Then it updates the list of models.
async function alone(work) {
  if (running) {
    say('Wait until this is finished, or stop it.');
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

// Shows progress in words, and as a share if it is known.
function showProgress(words, share) {
  // The pressed button is now disabled: its focus moves to "Stop".
  const focus = document.activeElement;
  const lost = at('under-way').hidden && (focus === document.body || at('shelf').contains(focus));
  at('under-way').hidden = false;
  if (lost) at('leave').focus();
  if (share === undefined) at('downloaded').removeAttribute('value');
  else at('downloaded').value = share;
  at('downloaded-is').textContent = words;
}

// Shows what a model needs. Returns whether it fits, as far as the browser reports.
async function show(words, model) {
  const rows = needs(await gpu(), { ...model, ...loading() });
  showNeeds(at('candidate-needs'), rows, at('candidate-todo'));
  at('candidate-needs').caption.textContent = words;
  at('candidate').hidden = false;
  return rows.every(({ fits = true }) => fits);
}

// Uses a model from a local folder.
function take(promised) {
  at('another').open = true;
  return alone(async (signal) => {
    showProgress('Reading the files.');
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
    if (weights.bytes.f16 < LARGE) {
      use({ name, files });
      return;
    }
    // Loading takes long: the user reads the table first.
    at('load').hidden = false;
    at('load').onclick = () => {
      at('load').hidden = true;
      use({ name, files });
    };
    say(`${name} is large. Compare what it needs with what is available before you load it.`);
  });
}

// Checks what there is under an address.
async function look(address, signal) {
  showProgress('Looking for a model.');
  // The result for an earlier address is out of date.
  at('candidate').hidden = true;
  const { url, total, missing, weights } = await store.survey(address, { signal });
  seen = url;
  const name = nameOf(url);
  await show(`What ${name} needs`, { weights, missing, room: await store.room() });
  at('download').textContent = missing > 0 ? `Download ${size(missing)}` : 'Already downloaded: verify it';
  at('download').hidden = false;
  at('load').hidden = true;
  at('candidate').scrollIntoView({ block: 'nearest' });
  const now = missing > 0 ? 'Nothing is downloaded before you press "Download"' : 'They are in this browser';
  say(`${name}: the files have ${size(total)} in all. ${now}.`);
}

// Verifies what is downloaded of a model, and downloads the rest.
async function download(url, signal) {
  at('candidate').hidden = true;
  showProgress('Looking for a model.');
  await store.download(url, {
    signal,
    onProgress({ stage, name, there, total, rate, eta }) {
      const words = [`${size(there)} of ${size(total)}`];
      if (rate !== null) words.push(`${size(rate)}/s`, `${wait(eta)} left`);
      showProgress(`${stage === 'checking' ? 'Verifying' : 'Downloading'} ${name}: ${words.join(', ')}`, there / total);
    },
  });
  say(`${nameOf(url)} is downloaded.`);
}

// Lists the downloaded models with their buttons.
async function showKept() {
  // Without storage the demo model is still there.
  const models = await store.list().catch(() => []);
  at('kept').replaceChildren(
    entry('The demo model', 'part of this page', [['Use', () => use(null)]]),
    ...(folder ? [entry(folder, 'a folder, open now; the browser asks for it again at the next visit', [])] : []),
    ...models.map(({ url, total, there, whole }) => {
      const name = nameOf(url);
      const load = async () => use(await downloaded(url));
      const fetch = (signal) => download(url, signal);
      const forget = async () => {
        await store.remove(url);
        say(`${name} is deleted.`);
      };
      return whole
        ? entry(name, size(total), [['Use', load], ['Verify', fetch], ['Delete', forget]])
        : entry(name, `${size(there)} of ${size(total)}`, [['Resume', fetch], ['Delete', forget]]);
    }),
  );
}

// A published checkpoint, and a button that looks at it as if its id had been typed.
function published({ id, size: bytes, licence, good, tiles }) {
  const check = (signal) => {
    at('address').value = id;
    return look(id, signal);
  };
  const page = make('a', { href: `${HUB}/${id}`, target: '_blank', rel: 'noreferrer' }, id);
  return entry(page, `${bytes}. ${licence}. ${good} ${tiles}`, [['Check', check]], id);
}

// A promise of a downloaded model.
export async function downloaded(url) {
  return { name: nameOf(url), url, files: await store.files(url) };
}

function entry(title, words, acts, name = title) {
  const buttons = acts.map(([act, work]) => {
    const button = make('button', { type: 'button', ariaLabel: `${act}: ${name}` }, act);
    button.addEventListener('click', () => alone(work));
    return button;
  });
  return make('li', {}, make('span', {}, title), make('span', { className: 'soft' }, words), ...buttons);
}

// The id of a repository, or an address in short form.
export const nameOf = (url) => repositoryOf(url)?.name ?? url.replace(/^https?:\/\//, '').replace(/\/$/, '');
