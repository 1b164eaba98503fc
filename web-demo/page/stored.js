// The list of what this page stores in the browser, with sizes and buttons to delete it.

import * as answering from './answering.js';
import { at, make } from './dom.js';
import { nameOf, store } from './another.js';
import { bytes, keep, keepPicture, recall, recallPicture } from './memory.js';
import { size } from './numbers.js';
import * as offline from './offline.js';

export function stored() {
  at('stored').addEventListener('toggle', show);
  at('forget').addEventListener('click', async () => {
    if (!confirm('Delete everything that this page stores in this browser, with downloaded models?')) return;
    for (const { forget } of await entries()) await act(forget);
    await show();
  });
}

// What there is: a name, bytes, and how to delete it.
async function entries() {
  const picture = recall('picture');
  const own = (await recallPicture())?.blob?.size ?? 0;
  const models = await store.list().catch(() => []);
  return [
    { name: 'Settings', bytes: bytes('settings'), forget: answering.forget },
    { name: 'The conversation', bytes: bytes('conversation'), forget: () => keep('conversation', null) },
    { name: `The picture ${picture?.example ?? picture?.name ?? ''}`, bytes: bytes('picture') + own, forget: () => keepPicture(null) },
    { name: 'The chosen model', bytes: bytes('model'), forget: () => keep('model', null) },
    { name: 'The page, for use without a network (stored again at the next visit)', bytes: await offline.bytes(), forget: offline.forget },
    ...models.map(({ url, there }) => ({ name: `The model ${nameOf(url)}`, bytes: there, forget: () => store.remove(url) })),
  ].filter((entry) => entry.bytes > 0);
}

async function show() {
  const found = await entries();
  at('stored-list').replaceChildren(...found.map((entry) => {
    const button = make('button', { type: 'button', ariaLabel: `Forget: ${entry.name}` }, 'Forget');
    button.addEventListener('click', async () => {
      await act(entry.forget);
      await show();
      // The pressed button is gone.
      at('stored').querySelector('summary').focus();
    });
    return make('li', {}, make('span', {}, entry.name), make('span', { className: 'soft' }, size(entry.bytes)), button);
  }));
  at('stored-nothing').hidden = found.length > 0;
  at('forget').hidden = found.length === 0;
}

// Deletes one entry. A model that is being downloaded can't be deleted.
async function act(forget) {
  try {
    await forget();
    at('stored-error').textContent = '';
  } catch (why) {
    at('stored-error').textContent = why.message;
  }
}
