// The service worker: stores the page's own files, so that the page works without a network. `files.json`, which the bundle writes,
// lists them, and has a version that changes with any of them. Downloads of models and a server's API are not touched.
//
// Every version has its own cache; `current` is the version that pages get. A page asks for "update" after it has loaded: a new
// version is then stored beside the current one. The next page that starts alone asks to "renew", and loads again. So no page
// gets files of two versions, and the worker itself may be replaced at any time.

const { scope } = self.registration;
// Copies of the page in other folders of the same host have their own caches.
const OURS = `fovea ${scope} `;
const STATE = `${OURS}state`;
// A page that is being left counts for a moment: how often, and in which interval in milliseconds, to look for other pages.
const [TRIES, STEP] = [10, 100];
const LIST = 'files.json';
// Never stored: the list of files, and what a server with an engine adds.
const FRESH = /^(files\.json|sw\.js|fovea-server\.json|v1\/)/;

const address = (file) => new URL(file.split('/').map(encodeURIComponent).join('/'), scope).href;

self.addEventListener('install', (event) => {
  self.skipWaiting();
  event.waitUntil(update());
});
// A page that was loaded from the network restarts its engine from the cache, too.
self.addEventListener('activate', (event) => event.waitUntil(self.clients.claim()));
self.addEventListener('message', (event) => {
  const act = { update, renew }[event.data];
  if (act) event.waitUntil(act().catch(() => false).then((reply) => event.ports[0].postMessage(reply)));
});
self.addEventListener('fetch', (event) => {
  const { method, url, headers } = event.request;
  if (method !== 'GET' || !url.startsWith(scope) || headers.has('range')) return;
  const file = decodeURIComponent(new URL(url).pathname.slice(new URL(scope).pathname.length)) || 'index.html';
  if (!FRESH.test(file)) event.respondWith(stored(file, event.request));
});

// The versions: `current`, and the `next` one, if there is one.
async function state() {
  const answer = await (await caches.open(STATE)).match(scope);
  return answer ? answer.json() : { current: null, next: null };
}

async function set(versions) {
  await (await caches.open(STATE)).put(scope, new Response(JSON.stringify(versions)));
}

async function stored(file, request) {
  const { current } = await state();
  const answer = current && await (await caches.open(OURS + current)).match(address(file));
  // Not the page's file, or deleted by the browser.
  return answer || fetch(request);
}

// Stores the host's version. Returns whether it is newer than the current one.
async function update() {
  const { version, files } = await (await fetch(address(LIST), { cache: 'no-store' })).json();
  const { current, next } = await state();
  if (version === current) return false;
  if (version === next) return true;
  const cache = await caches.open(OURS + version);
  try {
    await Promise.all(files.map(async (file) => {
      const answer = await fetch(address(file), { cache: 'no-cache' });
      if (!answer.ok) throw new Error(`${file}: expected the file, got status ${answer.status}`);
      // Some hosts redirect index.html. Browsers refuse a redirected response for a page.
      const plain = answer.redirected ? new Response(await answer.blob(), { headers: answer.headers }) : answer;
      await cache.put(address(file), plain);
    }));
  } catch (why) {
    await caches.delete(OURS + version);
    throw why;
  }
  await set(current ? { current, next: version } : { current: version, next: null });
  return current !== null;
}

// Makes the next version current, if only one page is open. Returns whether it did.
async function renew() {
  const { next } = await state();
  if (!next) return false;
  for (let tries = 0; tries < TRIES; tries += 1) {
    const pages = await self.clients.matchAll({ type: 'window', includeUncontrolled: true });
    if (pages.filter(({ url }) => url.startsWith(scope)).length <= 1) {
      await set({ current: next, next: null });
      const old = (await caches.keys()).filter((name) => name.startsWith(OURS) && ![STATE, OURS + next].includes(name));
      await Promise.all(old.map((name) => caches.delete(name)));
      return true;
    }
    await new Promise((resolve) => { setTimeout(resolve, STEP); });
  }
  return false;
}
