// Replays recorded answers of the command line if the engine can't run, marked as a recording. `checks/record.mjs` makes them.

import { at, make } from './dom.js';
import { file, sent } from './examples.js';
import { overlayOf, showCost, showTokens } from './numbers.js';
import * as transcript from './transcript.js';
import { showOverlay, showPicture } from './view.js';

const FOLDER = 'recorded';

let playing = new AbortController();

// Offers the recorded questions, and plays the first.
export async function playRecording() {
  const { picture, of, runs } = await (await sent(`${FOLDER}/runs.json`)).json();
  at('recording-of').textContent = of;
  at('recording-questions').replaceChildren(...runs.map((run) => {
    const button = make('button', { type: 'button' }, run.done.question);
    button.addEventListener('click', () => play(picture, run));
    return make('li', {}, button);
  }));
  show(true);
  await play(picture, runs[0]);
}

// Hides the recording, for computed answers.
export function stopRecording() {
  playing.abort();
  if (!at('recording').hidden) show(false);
}

function show(is) {
  for (const id of ['recording', 'recorded']) at(id).hidden = !is;
  at('comparing').hidden = is;
  at('after').hidden = true;
  transcript.cut(0);
  at('tokens').replaceChildren();
  document.body.toggleAttribute('data-recorded', is);
}

async function play(picture, { overlay, done }) {
  playing.abort();
  const { signal } = playing = new AbortController();
  const continues = async (ms) => {
    await new Promise((resolve) => { setTimeout(resolve, ms); });
    return !signal.aborted;
  };
  transcript.cut(0);
  transcript.add({ question: done.question, answer: '', end: null });
  at('after').hidden = true;
  await showPicture(await file(picture), `The example ${picture}`);
  if (!await continues(done.timing_ms.first_token)) return;
  showTokens(done.tokens);
  for (const piece of pieces(done)) {
    transcript.grow(piece);
    if (!await continues(1000 / (done.tokens_per_second ?? 1000))) return;
  }
  transcript.finish({ answer: done.answer, end: 'stop' });
  showCost(done);
  at('json').textContent = JSON.stringify(done, null, 2);
  at('after').hidden = false;
  const drawn = await (await sent(`${FOLDER}/${overlay}`)).blob();
  if (signal.aborted) return;
  await showOverlay(drawn, `Recorded. ${overlayOf(done.question, done.tokens)}`);
}

// The answer in as many pieces as it has tokens. The recording does not contain the text of each token.
function pieces({ answer, answer_ids: ids }) {
  const text = answer.trim();
  const at = (index) => Math.round(text.length * index / ids.length);
  return ids.map((_, index) => text.slice(at(index), at(index + 1)));
}
