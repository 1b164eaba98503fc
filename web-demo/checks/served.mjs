// Serves the page's folder like `fovea-web-bundle --serve`, with the same headers, for checks that replace some of its files.

import { createServer } from 'node:http';
import { readFile } from 'node:fs/promises';
import { extname, join, normalize } from 'node:path';

const POLICY = "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; img-src 'self' blob:; connect-src 'self' https:";
const ISOLATION = { 'cross-origin-opener-policy': 'same-origin', 'cross-origin-embedder-policy': 'require-corp' };
const TYPES = {
  '.html': 'text/html', '.css': 'text/css', '.js': 'text/javascript', '.json': 'application/json', '.wasm': 'application/wasm',
  '.svg': 'image/svg+xml', '.png': 'image/png', '.jpg': 'image/jpeg', '.webp': 'image/webp',
};

// Serves `folder` on a free port. `before` receives a path and, for a post, its text; it returns { type, body }, or null for the
// folder's own file. Returns the address, and a function that stops the server.
export async function serve(folder, before = async () => null) {
  const server = createServer(async (request, response) => {
    const path = decodeURIComponent(new URL(request.url, 'http://localhost').pathname).slice(1);
    const send = (status, type, body) => {
      const headers = { 'content-type': type, 'content-security-policy': POLICY, ...ISOLATION, 'content-length': Buffer.byteLength(body) };
      response.writeHead(status, headers).end(body);
    };
    try {
      let text = '';
      for await (const part of request) text += part;
      const own = await before(path, request.method === 'POST' ? text : null);
      if (own) send(200, own.type, own.body);
      else if (normalize(path).startsWith('..')) send(404, 'text/plain', '');
      else send(200, TYPES[extname(path)] ?? 'application/octet-stream', await readFile(join(folder, path)));
    } catch {
      send(404, 'text/plain', '');
    }
  });
  await new Promise((resolve) => { server.listen(0, '127.0.0.1', resolve); });
  return { address: `http://127.0.0.1:${server.address().port}/`, close: () => server.close() };
}
