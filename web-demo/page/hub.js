// The Hugging Face hub: addresses of repositories, and the files of a repository at one commit, with their sizes and hashes.
//
// `?hub=http://127.0.0.1:PORT` in the address of the page or worker replaces the hub by a server on this machine, for tests.

import { unlike } from './error.js';
import { request } from './range.js';

// Only these hosts may replace the hub: a link must not be able to choose another one.
const LOCAL = ['localhost', '127.0.0.1', '[::1]'];
const given = URL.parse?.(new URLSearchParams(self.location.search).get('hub'));
export const HUB = LOCAL.includes(given?.hostname) ? given.origin : 'https://huggingface.co';

// A repository's id, optionally with a revision and with names of GGUF files: ORG/NAME@REVISION:NAME,NAME.
const ID = /^([A-Za-z0-9_][\w.-]*\/[A-Za-z0-9_][\w.-]*)(?:@(\w[\w./-]*))?(?::([^:/\\]+))?$/;
// The path of a repository's page, and of the folder of its files at a revision. After # are the names of GGUF files.
const PAGE = /^\/([^/]+\/[^/]+)(?:\/(?:tree|blob|resolve)\/([^/]+).*)?\/?$/;
const FOLDER = /^\/([^/]+\/[^/]+)\/resolve\/([^/]+)\/(?:#(.+))?$/;

const folder = (id, revision) => `${HUB}/${id}/resolve/${revision}/`;

// The path of a file in a URL.
export const inUrl = (path) => path.split('/').map(encodeURIComponent).join('/');

// A pasted address can have a % without a code.
function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

const listed = (names) => names.split(',').map((name) => name.trim()).filter(Boolean);

// The address of the files of a repository, from its id or from a URL of its page; null if `text` is neither.
export function folderOf(text) {
  const [, id, revision = 'main', names] = ID.exec(text) ?? [];
  if (id) {
    const wanted = listed(names ?? '').join(',');
    // A revision such as refs/pr/1 is one part of the path.
    return `${folder(id, encodeURIComponent(revision))}${wanted ? `#${encodeURIComponent(wanted)}` : ''}`;
  }
  // It is the address of files already.
  if (repositoryOf(text)) return text;
  const [, page, at = 'main'] = (text.startsWith(`${HUB}/`) && PAGE.exec(new URL(text).pathname)) || [];
  return page ? folder(page, at) : null;
}

// The repository whose files have this address: its `id`, `revision` (as in a URL), the `wanted` names of GGUF files, short `name`,
// and the address of its `page`; null if it is not on the hub.
export function repositoryOf(url) {
  const [, id, revision, names] = (url.startsWith(`${HUB}/`) && FOLDER.exec(url.slice(HUB.length))) || [];
  if (!id) return null;
  const wanted = listed(decoded(names ?? ''));
  const name = `${id}${revision === 'main' ? '' : `@${decodeURIComponent(revision)}`}${wanted.length > 0 ? `:${wanted}` : ''}`;
  return { id, revision, wanted, name, page: `${HUB}/${id}` };
}

// All files of a repository, at the commit that its revision is now: { name, url, size, oid }. `oid` is the hub's hash of the
// file: SHA-256 of a file in LFS, else the id of the git blob.
//
// Errors: `missing` if there is no such repository or revision, `access` if it is private or gated, `server` if the hub's
// answer is invalid, and those of `request`.
export async function filesOf({ id, revision, name, page }, signal) {
  const api = `${HUB}/api/models/${id}/revision/${revision}?blobs=true`;
  const answer = await request(api, { signal });
  const { status } = answer;
  const got = `status ${status}`;
  if (status === 404) {
    throw unlike('missing', name, 'a repository of this name and revision', got, `Check both on ${page}.`);
  }
  // The hub also answers 401 if there is no such repository.
  if (status === 401) {
    const todo = `There is no such repository, or it is private or gated. Check the name on ${page}. ${elsewhere(name)}`;
    throw unlike('access', name, 'a public repository', got, todo);
  }
  if (status === 403) throw gated(got);
  if (!answer.ok) throw unlike('server', api, 'a list of files', got);
  const info = await answer.json().catch((why) => { throw unlike('server', api, 'JSON', why.message); });
  // The list is public, but the files are not.
  if (info?.gated) throw gated('a gated one');
  const { sha, siblings } = info ?? {};
  if (typeof sha !== 'string' || !Array.isArray(siblings)) throw unlike('server', api, '`sha` and `siblings`', 'something else');
  return siblings.map(({ rfilename, size, blobId, lfs }) => {
    return { name: rfilename, url: `${folder(id, sha)}${inUrl(rfilename)}`, size, oid: lfs?.sha256 ?? blobId ?? null };
  });

  function gated(what) {
    return unlike('access', name, 'a public repository', what, `Open ${page} and accept its terms. ${elsewhere(name)}`);
  }
}

// This page sends no token. The command has an option for the names of GGUF files.
function elsewhere(name) {
  const [id, files] = name.split(':');
  const options = files ? files.split(',').map((file) => ` --file ${file}`).join('') : '';
  return `If you have access, download it with \`fovea pull ${id}${options}\`, then open its folder.`;
}
