// Under `?report` a page runs by itself, and tells the server that it came from how it goes, and what came of it.

const asked = new URLSearchParams(location.search).get('report');

export const reporting = asked !== null;
// What the run is of, where a page has several: the value of `report`.
export const run = asked ?? '';

// Posts text or, of anything else, its JSON. What is told arrives in the order it was told in. Where nobody takes it,
// `failed` is told a sentence, and nobody waits for the rest either.
export function poster(failed) {
  let posts = Promise.resolve();
  return (to, what) => {
    if (!reporting) return;
    const text = typeof what === 'string';
    const send = async () => {
      const headers = { 'content-type': text ? 'text/plain' : 'application/json' };
      const answer = await fetch(to, { method: 'POST', headers, body: text ? what : JSON.stringify(what) });
      if (!answer.ok) throw new Error(`${to}: expected to be taken, got ${answer.status}`);
    };
    posts = posts.then(send).catch((why) => failed(`The report was not taken: ${why.message}.`));
  };
}
