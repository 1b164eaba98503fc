// A picture by its address: pasted as text, or a link that is dropped. Its server must allow this page to read it (CORS).

// The most bytes of a picture.
const MOST = 128 << 20;

// The address in a text, or null if it is none.
export function address(text) {
  const word = text?.trim() ?? '';
  if (!/^https?:\/\/\S+$/i.test(word)) return null;
  try {
    return new URL(word);
  } catch {
    return null;
  }
}

// Downloads the picture. The engine finds out whether it is one.
export async function linked(url) {
  const where = url.origin + url.pathname;
  let response;
  try {
    response = await fetch(url, { credentials: 'omit', referrerPolicy: 'no-referrer' });
  } catch {
    throw new Error(`${where} can't be read: there is no such server, or it does not allow other pages to read it (CORS). Save the picture, and open the file.`);
  }
  if (!response.ok) throw new Error(`${where}: expected a picture, got the status ${response.status}.`);
  if (Number(response.headers.get('content-length')) > MOST) {
    await response.body?.cancel();
    throw new Error(`${where}: expected at most ${MOST >> 20} MiB, got more.`);
  }
  const blob = await response.blob();
  return new File([blob], url.pathname.split('/').at(-1) || 'picture', { type: blob.type });
}
