// The engine of the server that sends this page (`fovea serve --page`), with the methods of `fovea.js`. The server announces itself
// in `fovea-server.json`: { models, api, key }. Without one, `api` is null.

import { FoveaError } from './error.js';

// The models of this page's server, the address of its API, and whether it wants a key; no models without one.
export async function announced() {
  try {
    const answer = await fetch('fovea-server.json', { cache: 'no-store' });
    const { models, api, key = false } = await answer.json();
    return { models: api ? models : [], api, key };
  } catch {
    return { models: [], api: null, key: false };
  }
}

export class ServerEngine {
  #api;
  #model;
  #key;
  #leave = new AbortController();
  about;

  // `key` is sent as a bearer token; empty without one.
  static async create({ api, model, key, signal }) {
    const engine = new ServerEngine(api, model, key);
    await engine.send(`models/${encodeURIComponent(model)}`, { signal });
    return engine;
  }

  constructor(api, model, key) {
    [this.#api, this.#model, this.#key] = [api, model, key];
    this.about = {
      device: 'this server', dtype: '', weight_bytes: null, cache: '', memory: null, layers: 1, compression: '', methods: [],
      trained: true, notes: [],
      focus: { text_layer: null, gamma: 1 },
    };
  }

  async lookAt(picture) {
    const url = await new Promise((resolve, reject) => {
      const reader = new FileReader();
      reader.onload = () => resolve(reader.result);
      reader.onerror = () => reject(reader.error);
      reader.readAsDataURL(picture);
    });
    return new ServerSight(this, this.#model, url);
  }

  // The server checks it with the question.
  async check(compression) {
    return compression;
  }

  dispose() {
    this.#leave.abort(new FoveaError('The engine was disposed of: create another one.', 'disposed'));
  }

  // Sends a request to the API. `body` is posted as JSON.
  async send(path, { body, signal } = {}) {
    const both = AbortSignal.any([this.#leave.signal, ...(signal ? [signal] : [])]);
    const headers = { ...(this.#key && { authorization: `Bearer ${this.#key}` }), ...(body && { 'content-type': 'application/json' }) };
    let answer;
    try {
      answer = await fetch(`${this.#api}/${path}`, { method: body ? 'POST' : 'GET', headers, body: body && JSON.stringify(body), signal: both });
    } catch (why) {
      if (both.aborted) throw both.reason;
      throw new FoveaError(`The server: expected an answer, got ${why.message}. Check the connection, then try again.`, 'network');
    }
    if (answer.ok) return answer;
    const { error } = await answer.json().catch(() => ({}));
    throw failed(error ?? { message: `The server: expected an answer, got status ${answer.status}.` });
  }
}

// A picture that can be asked about. The server gets it with every question.
class ServerSight {
  #engine;
  #model;
  #url;
  #overlay = null;

  constructor(engine, model, url) {
    [this.#engine, this.#model, this.#url] = [engine, model, url];
  }

  async prepare() {}

  async *ask(question, { signal, compression, maxNewTokens, temperature, topP, seed, stop } = {}) {
    const messages = Array.isArray(question) ? question : [{ role: 'user', content: String(question) }];
    const body = {
      model: this.#model, messages: this.#withPicture(messages), compression, max_tokens: maxNewTokens, temperature,
      top_p: topP, seed, stop, stream: true, stream_options: { include_usage: true },
    };
    const started = performance.now();
    let first = null;
    let [answer, end, usage, looked] = ['', null, null, null];
    this.#overlay = null;
    const response = await this.#engine.send('chat/completions', { body, signal });
    for await (const chunk of events(response.body)) {
      if (chunk.error) throw failed(chunk.error);
      usage = chunk.usage ?? usage;
      if (chunk.fovea) {
        this.#overlay = chunk.fovea.overlay ?? null;
        looked = lookedOf(chunk.fovea);
        if (looked) yield { looked };
      }
      const [choice] = chunk.choices ?? [];
      const text = choice?.delta?.content;
      if (text) {
        first ??= performance.now() - started;
        answer += text;
        yield { token: { id: 0, text } };
      }
      end = choice?.finish_reason ?? end;
    }
    const tokens = usage?.visual_tokens ?? looked?.tokens ?? { all: 0, compressed: 0, kept: 0 };
    yield { done: {
      question: messages.at(-1).content, answer, answer_ids: [], finish_reason: end ?? 'stop', compression: compression ?? 'as the server says',
      tokens, equivalent_share: usage?.equivalent_share ?? 1, timing_ms: { first_token: first ?? 0 }, tokens_per_second: null,
      memory_bytes: null, device: 'this server', dtype: null,
    } };
  }

  async look() {
    throw new FoveaError('The server computes the attention only together with an answer: ask again.', 'option');
  }

  async keep() {
    return this.look();
  }

  async overlay() {
    if (!this.#overlay) throw new FoveaError('The server: expected an attention overlay, got none. Ask again.', 'option');
    const path = this.#overlay.replace(/^.*\/(?=overlay\/)/, '');
    return (await this.#engine.send(path)).blob();
  }

  async close() {}

  // The picture comes before the first question.
  #withPicture(messages) {
    const first = messages.findIndex(({ role }) => role === 'user');
    const picture = { type: 'image_url', image_url: { url: this.#url } };
    return messages.map((message, index) => (index === first
      ? { ...message, content: [picture, { type: 'text', text: message.content }] } : message));
  }
}

// The counts of tokens of the picture. The server sends the overlay as a picture, without details of its tokens.
function lookedOf({ kept }) {
  const picture = kept?.[0];
  if (!picture) return null;
  const { tokens, kept: left } = picture;
  return { tokens: { all: tokens, compressed: tokens, kept: left.length }, visual_tokens: null };
}

// The chunks of a stream of server-sent events, to its end.
async function* events(body) {
  let text = '';
  for await (const piece of pieces(body.pipeThrough(new TextDecoderStream()))) {
    const blocks = (text + piece).split(/\r?\n\r?\n/);
    text = blocks.pop();
    for (const block of blocks) {
      const data = block.split(/\r?\n/).filter((line) => line.startsWith('data:')).map((line) => line.slice(5).trim()).join('\n');
      if (data === '[DONE]') return;
      if (data) yield JSON.parse(data);
    }
  }
}

// Not every browser iterates over a stream.
async function* pieces(stream) {
  const reader = stream.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield value;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

const failed = ({ message, code }) => new FoveaError(message, typeof code === 'string' ? code : 'server');
