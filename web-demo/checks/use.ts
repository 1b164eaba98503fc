// A use of the whole API, which `tsc --noEmit` checks against `page/fovea.d.ts`.

import { Fovea, FoveaError } from '../page/fovea.js';
import type { Looked, Message, VisualToken } from '../page/fovea.js';

export async function answer(picture: Blob, question: string, signal: AbortSignal): Promise<string> {
  const engine = await Fovea.create({ signal, onProgress: ({ done, total }) => console.log(done / total) });
  try {
    const sight = await engine.lookAt(picture, { signal });
    let text = '';
    const options = { compression: await engine.check('vision+text:gamma=0.5,layer=2'), maxNewTokens: 8, signal };
    for await (const event of sight.ask(question, options)) {
      if (event.token) text += event.token.text;
      if (event.done) console.log(engine.about.threads, event.done.compression, event.done.tokens.all, event.done.equivalent_share);
    }
    const looked: Looked = await sight.keep(0.25);
    const drawn: Blob = await sight.overlay();
    return `${text} ${looked.kept.length} ${drawn.size}`;
  } catch (why) {
    if (why instanceof FoveaError && why.code === 'device-lost') return 'the GPU was lost';
    throw why;
  } finally {
    engine.dispose();
  }
}

export async function conversation(engine: Fovea, picture: Blob): Promise<Message[]> {
  const sight = await engine.lookAt(picture);
  const messages: Message[] = [{ role: 'system', content: 'Answer with one word.' }];
  for (const question of ['What word is on the sign?', 'Which color does it have?']) {
    messages.push({ role: 'user', content: question });
    for await (const { done } of sight.ask(messages, { temperature: 0.7, topP: 0.9, seed: 1, stop: ['.'] })) {
      if (done) messages.push({ role: 'assistant', content: done.answer });
      if (done?.finish_reason === 'length') console.log('cut off');
    }
  }
  return messages;
}

export function folder(files: FileList): Promise<Fovea> {
  return Fovea.create({ files: new Map([...files].map((file) => [file.name, file])), cpu: true, dtype: 'q8', cache: 'f16', memory: 2e9, threads: 4 });
}

export async function tokens(engine: Fovea, picture: Blob): Promise<string[]> {
  const sight = await engine.lookAt(picture);
  const method = engine.about.methods.find(({ place }) => place === 'within');
  await sight.prepare({ compression: method?.default });
  const looked = await sight.look('What word is on the sign?');
  const kept: VisualToken[] = looked.visual_tokens.filter(({ part, kept }) => part === 'map' && kept);
  return kept.map(({ rects, scale, rank }) => `${rects.join(' ')} ${scale ?? 'no scale'} ${rank ?? 'no rank'}`);
}
