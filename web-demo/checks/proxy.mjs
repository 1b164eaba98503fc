// Passes requests on to a served page, for checks that change an answer, or cut the network.

import { createServer } from 'node:http';

// The page is then not isolated from other origins, as on a host that sends no headers for it.
//
// Serves the page at `address` under the folder `sub/` of a free port. `own` has functions by path: each receives the request and
// its text, and returns { status, headers, body }. Returns the address, `own`, and functions: `cut(true)` refuses all requests.
export async function proxy(address, own = {}) {
  let isCut = false;
  const server = createServer(async (request, response) => {
    if (isCut) {
      request.socket.destroy();
      return;
    }
    try {
      let text = '';
      for await (const part of request) text += part;
      const { pathname } = new URL(request.url, 'http://localhost');
      const path = pathname.replace(/^\/sub\//, '');
      const { status = 200, headers, body } = own[path] ? await own[path](request, text) : await passed(new URL(path, address));
      response.writeHead(status, headers).end(body);
    } catch {
      response.writeHead(404).end();
    }
  });
  await new Promise((resolve) => { server.listen(0, '127.0.0.1', resolve); });
  return {
    address: `http://127.0.0.1:${server.address().port}/sub/`,
    own,
    cut(is) {
      isCut = is;
      server.closeAllConnections();
    },
    close() {
      server.close();
      server.closeAllConnections();
    },
  };
}

async function passed(url) {
  const answer = await fetch(url);
  const keep = ['content-type', 'content-security-policy'];
  const headers = Object.fromEntries(keep.filter((name) => answer.headers.has(name)).map((name) => [name, answer.headers.get(name)]));
  return { status: answer.status, headers, body: Buffer.from(await answer.arrayBuffer()) };
}
