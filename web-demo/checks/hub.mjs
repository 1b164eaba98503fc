// Plays the Hugging Face hub for the checks, on this machine: the list of a repository's files, and the files at one commit, each
// behind a redirect to another host, as on the hub.

import { createHash } from 'node:crypto';
import { createServer } from 'node:http';

const COMMIT = 'c0ffee'.padEnd(40, '0');
const hash = (kind, ...parts) => parts.reduce((sum, part) => sum.update(part), createHash(kind)).digest('hex');

// Serves `files` (contents by name) as the repository ORG/NAME `id`. Repositories with these other ids answer as on the hub:
// `fixtures/gated`, `fixtures/private`, `fixtures/busy`; `fixtures/wrong` lists a wrong hash. All others don't exist. Returns the
// address, the names of the files that were `sent`, and a function that stops the server.
export async function hub(id, files) {
  const sent = new Set();
  const siblings = (wrong) => Object.entries(files).map(([rfilename, bytes]) => {
    const blobId = hash('sha1', `blob ${bytes.length}\0`, bytes);
    const lfs = { sha256: hash('sha256', wrong ? 'another file' : bytes), size: bytes.length, pointerSize: 134 };
    return { rfilename, blobId, size: bytes.length, ...(/\.(safetensors|gguf)$/.test(rfilename) && { lfs }) };
  });
  const lists = {
    [id]: () => [200, { sha: COMMIT, gated: false, siblings: siblings(false) }],
    'fixtures/wrong': () => [200, { sha: COMMIT, gated: false, siblings: siblings(true) }],
    'fixtures/gated': () => [200, { sha: COMMIT, gated: 'manual', siblings: siblings(false) }],
    'fixtures/private': () => [401, { error: 'Invalid username or password.' }],
    'fixtures/busy': () => [429, { error: 'We had to rate limit you.' }],
  };
  const server = createServer((request, response) => {
    const { pathname } = new URL(request.url, 'http://localhost');
    const cors = { 'access-control-allow-origin': '*' };
    const [, listed] = /^\/api\/models\/([^/]+\/[^/]+)\/revision\/main$/.exec(pathname) ?? [];
    const [, name] = new RegExp(`^/[^/]+/[^/]+/resolve/${COMMIT}/(.+)$`).exec(pathname) ?? [];
    const bytes = files[/^\/cdn\/(.+)$/.exec(pathname)?.[1]];
    if (listed in lists) {
      const [status, body] = lists[listed]();
      response.writeHead(status, { ...cors, 'content-type': 'application/json' }).end(JSON.stringify(body));
    } else if (name in files) {
      sent.add(name);
      response.writeHead(302, { ...cors, location: `http://localhost:${server.address().port}/cdn/${name}` }).end();
    } else if (bytes) {
      const [from, to] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range).slice(1).map(Number);
      const range = { 'content-range': `bytes ${from}-${to}/${bytes.length}`, 'content-length': to - from + 1 };
      response.writeHead(206, { ...cors, ...range }).end(bytes.subarray(from, to + 1));
    } else {
      response.writeHead(404, cors).end();
    }
  });
  // Every address of this machine: `localhost` may be ::1.
  await new Promise((resolve) => { server.listen(0, resolve); });
  const close = () => {
    server.close();
    server.closeAllConnections();
  };
  return { address: `http://127.0.0.1:${server.address().port}`, sent, close };
}
