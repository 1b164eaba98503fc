// What the page remembers from visit to visit: small values in localStorage, the user's own picture in IndexedDB. Where the
// browser stores nothing (a private window, a full storage), the page only forgets.

const PREFIX = 'fovea.';
const [DATABASE, STORE, KEY] = ['fovea', 'pictures', 'last'];

// Keeps a value under a name; null deletes it.
export function keep(name, value) {
  try {
    if (value === null) localStorage.removeItem(PREFIX + name);
    else localStorage.setItem(PREFIX + name, JSON.stringify(value));
  } catch {
    // A full storage must not keep an old value instead.
    try {
      localStorage.removeItem(PREFIX + name);
    } catch {}
  }
}

// The value under a name, or null.
export function recall(name) {
  try {
    return JSON.parse(localStorage.getItem(PREFIX + name));
  } catch {
    return null;
  }
}

// The stored bytes under a name.
export function bytes(name) {
  try {
    return new Blob([localStorage.getItem(PREFIX + name) ?? '']).size;
  } catch {
    return 0;
  }
}

// Keeps a picture: an example by its name, another one with its bytes. null deletes it.
export async function keepPicture(picture) {
  const { example = null, blob = null } = picture ?? {};
  keep('picture', picture && { example, name: blob?.name ?? null });
  await inStore('readwrite', (store) => (picture && !example ? store.put(blob, KEY) : store.delete(KEY)))
    .catch(() => example || keep('picture', null));
}

// The picture: { example } or { blob }; null without one.
export async function recallPicture() {
  const picture = recall('picture');
  if (!picture) return null;
  if (picture.example) return { example: picture.example };
  const blob = await inStore('readonly', (store) => store.get(KEY)).catch(() => null);
  return blob ? { blob } : null;
}

// Runs one request in the database; returns its result.
async function inStore(mode, work) {
  const opening = indexedDB.open(DATABASE, 1);
  opening.onupgradeneeded = () => opening.result.createObjectStore(STORE);
  const database = await new Promise((resolve, reject) => {
    opening.onsuccess = () => resolve(opening.result);
    opening.onerror = () => reject(opening.error);
  });
  try {
    const transaction = database.transaction(STORE, mode);
    const request = work(transaction.objectStore(STORE));
    return await new Promise((resolve, reject) => {
      transaction.oncomplete = () => resolve(request.result);
      transaction.onabort = () => reject(transaction.error);
      transaction.onerror = () => reject(transaction.error);
    });
  } finally {
    database.close();
  }
}
