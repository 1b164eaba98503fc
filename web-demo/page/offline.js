// Stores the page in this browser, with a service worker (sw.js), so that it works without a network. Browsers allow that only on
// https and localhost; elsewhere nothing happens.

import { at } from './dom.js';

// How long the service worker may take to reply at the start of the page, in milliseconds.
const PATIENCE = 3000;
const SCRIPT = new URL('sw.js', location.href).href;

// Starts with a new version, if one was stored during an earlier visit. Then the page is loaded again, and this does not return.
export async function renew() {
  const worker = (await ours())?.active;
  const late = new Promise((resolve) => { setTimeout(resolve, PATIENCE, false); });
  if (!worker || !await Promise.race([reply(worker, 'renew'), late])) return;
  location.reload();
  await new Promise(() => {});
}

// Stores the page, or a new version of it, in the background.
export async function store() {
  try {
    await navigator.serviceWorker.register(SCRIPT, { updateViaCache: 'none' });
    const { active } = await navigator.serviceWorker.ready;
    show(await reply(active, 'update'));
  } catch {
    // No https, a private window, or no list of files: the page works without.
  }
}

// Asks the service worker for something.
function reply(worker, what) {
  const { port1, port2 } = new MessageChannel();
  worker.postMessage(what, [port2]);
  return new Promise((resolve) => { port1.onmessage = ({ data }) => resolve(data); });
}

// The stored files of the page, in bytes; 0 without any.
export async function bytes() {
  let sum = 0;
  for (const name of await names()) {
    const cache = await caches.open(name);
    for (const request of await cache.keys()) {
      const answer = await cache.match(request);
      sum += Number(answer.headers.get('content-length')) || (await answer.blob()).size;
    }
  }
  return sum;
}

// Deletes them. The next visit stores them again.
export async function forget() {
  await (await ours())?.unregister();
  for (const name of await names()) await caches.delete(name);
  at('offline').hidden = true;
}

async function ours() {
  try {
    const registration = await navigator.serviceWorker.getRegistration();
    return registration.active.scriptURL === SCRIPT ? registration : null;
  } catch {
    return null;
  }
}

async function names() {
  try {
    const folder = new URL('.', SCRIPT).href;
    return (await caches.keys()).filter((name) => name.startsWith(`fovea ${folder} `));
  } catch {
    return [];
  }
}

function show(isNew) {
  at('offline').hidden = false;
  at('offline-is').textContent = isNew
    ? 'A new version of this page is stored. Close its other tabs, and reload to use it.'
    : 'This page is stored in this browser: it also works without a network.';
  at('renew').hidden = !isNew;
}

at('renew').addEventListener('click', () => location.reload());
