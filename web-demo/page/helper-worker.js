// A helper of the engine: it holds rows of weights in its own wasm memory, and multiplies them.
//
// Receives one message, { module, buffer }: the engine's compiled module, and the buffer of its mail. Sends {} when it is ready, or
// { failed }, a sentence. After that its thread only waits for mail, and ends with the engine's worker.

import { load } from './engine-module.js';
import { FAILED, Mail, REPLY, REQUEST } from './mail.js';
import { overhear, sentence } from './worker-common.js';

// For the message of a panic.
overhear(() => {});

self.addEventListener('message', async ({ data: { module, buffer } }) => {
  let started;
  try {
    started = await start(module, new Mail(buffer));
  } catch (why) {
    self.postMessage({ failed: sentence(why) });
    return;
  }
  self.postMessage({});
  serve(started);
}, { once: true });

async function start(module, mail) {
  const { wasm, memory } = await load(module);
  mail.memory = memory.buffer.byteLength;
  return { mail, memory, helper: new wasm.Helper() };
}

// Answers requests for ever.
function serve({ mail, memory, helper }) {
  let trapped = null;
  for (;;) {
    mail.until([REQUEST]);
    try {
      // After a trap the wasm module must not be used again.
      if (trapped) throw trapped;
      const reply = helper.serve(mail.bytes);
      mail.memory = memory.buffer.byteLength;
      mail.put(REPLY, reply);
    } catch (why) {
      // An error of the module itself has a code; all others, such as an overflow of the stack, ended it in the middle.
      if (!(why instanceof Error && 'code' in why)) trapped = why;
      mail.put(FAILED, new TextEncoder().encode(sentence(why)));
    }
  }
}
