// The demo page: a picture, a conversation about it, and the attention overlay.

import { another, downloaded } from './another.js';
import * as answering from './answering.js';
import { camera } from './camera.js';
import { choose, chooser, compared, compression, offer, otherGamma } from './chooser.js';
import * as conversation from './conversation.js';
import { at, copies, make } from './dom.js';
import { address, examples, file } from './examples.js';
import * as field from './field.js';
import { intake } from './intake.js';
import { keep, keepPicture, recall, recallPicture } from './memory.js';
import { gpu, needs, showNeeds, usable } from './needs.js';
import { duration, overlayOf, showComparison, showCost, showTokens, size } from './numbers.js';
import * as offline from './offline.js';
import { readable } from './readable.js';
import { playRecording, stopRecording } from './recording.js';
import { serverChoice, showChoice } from './server-choice.js';
import { REPLACED, Session } from './session.js';
import { fail, far, hasFailed, say, test } from './status.js';
import { stored } from './stored.js';
import * as transcript from './transcript.js';
import { showOverlay, showOverlays, showPicture } from './view.js';

// A change of the settings takes effect after this pause, in milliseconds.
const REST = 60;

const anyGpu = test !== null || new URLSearchParams(location.search).has('gpu');

// The number of threads on the CPU, if the address has one.
const threads = new URLSearchParams(location.search).get('threads');

const session = new Session((why) => {
  // The new engine has no overlay yet.
  if (last) last.compression = null;
  restarted = ` The engine was restarted: ${why}`;
  const turn = conversation.turns.at(-1);
  if (turn?.end === null) {
    turn.answer = '';
    transcript.restart();
  }
  say(`Restarting the engine, then asking again: ${why}`);
});

// The chosen model, { name, files }, with the `url` of a downloaded one, or with the `server` that has it; null is the demo model.
let model = null;
let pictures = new Map();
// Counts the pictures chosen so far.
let chosen = 0;
// Opens the current picture again.
let reopen = () => {};
// The last answer: its messages, the whole answer (`done`), what was `looked` at, and its `compression` (null: none of it is known).
let last = null;
// Whether the engine runs on the CPU, or elsewhere than on this browser's GPU.
let onCpu = false;
let running = new AbortController();
// Stops the work that is done before the next question.
let ahead = new AbortController();
let current = Promise.resolve();
let resting = 0;
let restarted = '';

function become(state) {
  document.body.dataset.state = state;
  at('asking').disabled = state === 'loading';
  at('settings').disabled = state !== 'ready';
  const focus = document.activeElement;
  at('ask').hidden = state === 'busy';
  at('stop').hidden = state !== 'busy';
  if (focus === at('ask') && state === 'busy') at('stop').focus();
  if (focus === at('stop') && state !== 'busy') at('ask').focus();
  at('begin-again').hidden = conversation.turns.length === 0;
}

// Runs one piece of work at a time. It stops the work before it, and replaces any that still waits. Meanwhile the page is in
// `state`.
function instead(state, work) {
  clearTimeout(resting);
  running.abort(REPLACED);
  const { signal } = running = new AbortController();
  current = current.then(async () => {
    if (signal.aborted) {
      // Stopped by the user before it began. Replaced work shows nothing.
      if (signal.reason !== REPLACED) {
        say('Stopped.');
        become(session.isOpen ? 'ready' : 'loading');
      }
      return;
    }
    become(state);
    try {
      await work(signal);
    } catch (why) {
      if (signal.reason !== REPLACED) {
        fail(why);
        if (!session.isOpen) rescue(why);
      }
    }
    become(session.isOpen ? 'ready' : 'loading');
  });
  return current;
}

// The engine.

// Offers what can help after an error.
function rescue(why) {
  const lost = ['network', 'server'].includes(why?.code);
  at('retry').hidden = !lost;
  for (const id of ['cpu', 'cpu-about']) at(id).hidden = lost;
  at('rescue').hidden = !lost && (onCpu || !['device', 'device-lost', 'worker', 'memory', 'engine'].includes(why?.code));
}

async function load(cpu) {
  at('rescue').hidden = true;
  answering.suit(model === null);
  at('loading').hidden = false;
  // Indeterminate until the engine reports progress.
  at('loading').removeAttribute('value');
  stopRecording();
  const options = async () => {
    if (model?.server) {
      onCpu = true;
      say(`Connecting to ${model.name}.`);
      return model.server;
    }
    onCpu = cpu || !await findGpu();
    say(`Loading ${nameOf(model)}${onCpu ? ' on the CPU' : ''}.`);
    return {
      cpu: onCpu,
      files: model?.files,
      // Tests compare with f32.
      ...(test ? { dtype: 'f32' } : answering.loading()),
      ...(threads && { threads: Number(threads) }),
      onProgress: ({ stage, done, total }) => { at('loading').value = (done / total + (stage === 'loading')) / 2; },
      onLine: (line) => test?.post('progress', line),
    };
  };
  try {
    const about = await session.start(options());
    offer(about);
    // A compression may not fit the model any more.
    const spec = answering.compressionOf(nameOf(model));
    if (spec) await choose(spec).catch(() => {});
    say([`Ready: ${nameOf(model)}, on ${about.device}${storage(about)}.`, ...notes(about)].join(' '));
  } catch (why) {
    // The newer call shows its own result.
    if (why === REPLACED) return;
    fail(why);
    rescue(why);
    if (!test && !model && ['engine', 'worker', 'unsupported'].includes(why?.code)) playRecording().catch(fail);
  }
  at('loading').hidden = true;
}

const nameOf = (one) => one?.name ?? 'the demo model';

// Loads another model, and opens the same picture with it. The conversation continues.
function use(next) {
  choosesModel(next);
  keep('model', model?.url ?? null);
  load(false);
  reopen();
}

function choosesModel(next) {
  model = next;
  last = null;
  at('after').hidden = true;
  at('demo-note').hidden = model !== null;
  at('with').textContent = `with ${nameOf(model)}`;
  showChoice(model);
}

// Shows what this browser has, and returns whether its GPU is used.
async function findGpu() {
  const found = await gpu();
  const used = usable(found, anyGpu);
  showNeeds(at('needs'), needs(found));
  at('gpu-hint').hidden = used;
  at('gpu-hint').textContent = found.why ? `${found.why} Answers are computed on the CPU, which is slower.`
    : 'This browser has only a software GPU, so answers are computed on the CPU, which is faster. Switch on hardware acceleration to use a real GPU.';
  return used;
}

// How a model is stored, if that is known.
const storage = ({ weight_bytes: bytes, dtype, cache, memory }) => (bytes === null ? ''
  : `: ${size(bytes)} of weights in ${dtype}, KV cache in ${cache}${memory === null ? '' : `, at most ${size(memory)} of memory`}`);

// Notes about a model for its user.
const notes = ({ trained, notes: said }) => [
  ...said.map((note) => `${note}.`),
  ...(trained ? [] : ['This checkpoint was not trained with FocusLLaVA\'s samplers, so it reads every visual token. '
    + 'Choose a method in the settings to use fewer tokens.']),
];

// The picture.

// If two pictures are chosen quickly one after the other, the later one counts, in whatever order they arrive.
async function openExample(name, again = false) {
  const mine = chosen += 1;
  const blob = await file(name);
  if (mine !== chosen) return;
  await open({ blob, words: `The example ${name}`, questions: pictures.get(name) ?? [], example: name }, again);
}

async function openOwn(given, again = false) {
  const mine = chosen += 1;
  let blob;
  try {
    blob = await readable(await given);
  } catch (why) {
    if (mine === chosen) fail(why);
    return;
  }
  if (mine !== chosen) return;
  await open({ blob, words: `Your picture ${blob.name}`, questions: [], example: null }, again);
}

// Opens a picture. An example is shown at once; the engine may still refuse a user's file. Another picture begins another
// conversation; the same one, opened `again`, does not.
function open(picture, again = false, mine = chosen) {
  reopen = () => open(picture, true, mine);
  ahead.abort(REPLACED);
  const { blob, words, questions, example } = picture;
  const present = async () => {
    last = null;
    // A recording has its own turns.
    if (!again && !('recorded' in document.body.dataset)) cut(0);
    at('tokens').replaceChildren();
    at('after').hidden = true;
    field.suggest(questions, ask);
    for (const button of at('examples').querySelectorAll('button')) button.ariaPressed = String(button.value === example);
    await showPicture(blob, words);
  };
  // A running question takes a moment to stop.
  if (session.isOpen) say('Opening the picture.');
  return instead('loading', async () => {
    if (example) await present();
    const loaded = session.isOpen;
    await session.open(blob);
    if (!example) await present();
    if (!test && !again) await keepPicture({ blob, example });
    // The first picture waits for the model; `load` then sets the status.
    // The status may already be that of another choice, such as why its file was not opened.
    if (mine === chosen && (loaded || hasFailed())) say('Ready.');
    prepare();
  });
}

// Does the work that does not depend on the question, before it is asked. Errors are ignored: the question will report them.
function prepare() {
  ahead.abort(REPLACED);
  const { signal } = ahead = new AbortController();
  session.prepare({ compression: compression(), signal }).catch(() => {});
}

// The question.

// Asks a question after the first `count` turns; the others are removed.
function ask(question, count = conversation.turns.length) {
  if (!question.trim()) return current;
  return instead('busy', async (signal) => {
    const { turns } = conversation;
    const asked = compression();
    const before = answering.reads() ? turns.slice(0, count) : [];
    const messages = conversation.messages(question, { system: answering.systemPrompt(), before });
    let looked = null;
    // If this is stopped, the engine may already have another overlay.
    if (last) last.compression = null;
    cut(count);
    const turn = { question, answer: '', end: null };
    turns.push(turn);
    transcript.add(turn);
    field.asked(question);
    at('begin-again').hidden = false;
    at('compared').hidden = true;
    restarted = '';
    say('Answering.');
    const started = performance.now();
    let done;
    try {
      done = await session.ask(messages, { ...answering.options(), compression: asked, signal }, (event) => {
        if (event.progress) say(`Answering: ${far(event.progress)}.`);
        if (event.token) {
          turn.answer += event.token.text;
          transcript.grow(event.token.text);
        }
        if (event.looked) {
          looked = event.looked;
          showTokens(looked.tokens);
        }
      });
      Object.assign(turn, { answer: done.answer, end: done.finish_reason ?? 'stop' });
    } catch (why) {
      Object.assign(turn, signal.aborted ? { end: 'stopped' } : { end: 'failed', why: why?.message ?? String(why) });
      throw why;
    } finally {
      transcript.finish(turn);
      if (!test) conversation.save();
    }
    say(`Answered in ${duration(performance.now() - started)}.${restarted}`);
    last = { messages, done, looked, compression: done.compression };
    showTokens(done.tokens);
    showCost(done);
    at('json').textContent = JSON.stringify(done, null, 2);
    at('after').hidden = false;
    await overlay();
  });
}

// Removes all turns after the first `count`, and ends the editing.
function cut(count) {
  field.edit(null);
  conversation.cut(count);
  transcript.cut(count);
  at('begin-again').hidden = count === 0;
}

function beginAgain() {
  return instead(session.isOpen ? 'ready' : 'loading', async () => {
    cut(0);
    last = null;
    at('after').hidden = true;
    at('tokens').replaceChildren();
    say('A new conversation.');
    at('question').focus();
  });
}

// Draws the attention overlay.
async function overlay() {
  const { messages, looked } = last;
  if (!looked) return;
  await showOverlay(await session.overlay(), overlayOf(messages.at(-1).content, looked.tokens), looked.visual_tokens && looked);
}

// Shows the overlay for another compression, without an answer. If only gamma changed, nothing is computed.
function relook() {
  return instead('ready', async (signal) => {
    // A server computes the attention only with an answer.
    if (!last || model?.server) return;
    const now = compression();
    const pruned = last.compression && last.looked.visual_tokens.some(({ rank }) => rank !== null);
    const gamma = pruned ? otherGamma(last.compression, now) : null;
    last.looked = gamma === null ? await session.look(last.messages, { compression: now, signal }) : await session.keep(gamma);
    last.compression = last.looked.compression;
    showTokens(last.looked.tokens);
    await overlay();
    say('The overlay shows the new settings; the answer is still the old one.');
  });
}

// Answers the last question with two methods, and shows both answers with their overlays.
function compare() {
  const { messages } = last;
  return instead('busy', async (signal) => {
    const methods = compared();
    // Sampled answers have the same seed.
    const options = answering.options();
    say('Asking twice, each time from scratch.');
    const answers = await session.compare(messages, methods.map(({ compression: spec }) => ({ ...options, compression: spec, signal })));
    const overlays = answers.map(({ done, overlay: png }, index) => (
      { png, caption: `${methods[index].title} (${done.compression})`, words: overlayOf(messages.at(-1).content, done.tokens) }
    ));
    await showOverlays(overlays.filter(({ png }) => png));
    showComparison(methods.map(({ title }) => title), answers.map(({ done }) => done));
    at('compared').hidden = false;
    at('compared').scrollIntoView({ block: 'nearest' });
    say('Compared.');
  });
}

// Buttons and inputs.

at('stop').addEventListener('click', () => {
  running.abort();
  // A question waits for the work that was started before it.
  ahead.abort();
});
at('begin-again').addEventListener('click', beginAgain);
field.connect(ask);
transcript.connect({ edit: field.edit, again: () => ask(conversation.turns.at(-1).question, conversation.turns.length - 1) });
chooser((spec) => {
  // The engine would finish it first.
  ahead.abort(REPLACED);
  return session.check(spec);
}, () => {
  clearTimeout(resting);
  // Work for the old settings is useless now.
  ahead.abort(REPLACED);
  answering.change({ compression: compression(), model: nameOf(model) });
  resting = setTimeout(last ? relook : prepare, REST);
});
answering.connect(() => use(model));
at('comparing').addEventListener('submit', (event) => {
  event.preventDefault();
  compare();
});
at('cpu').addEventListener('click', () => {
  load(true);
  reopen();
});
at('retry').addEventListener('click', () => {
  if (pictures.size === 0) location.reload();
  load(false);
  reopen();
});
copies(at('copy'), at('json'));
intake([at('file'), at('camera')], openOwn, another(use));
camera(openOwn, fail);

// Opens what was open at the last visit.
async function restore() {
  const url = recall('model');
  const again = url && await downloaded(url).catch(() => null);
  if (again) choosesModel(again);
  for (const turn of conversation.turns) transcript.add(turn);
}

async function begin() {
  if (!test) {
    await offline.renew();
    await restore();
    serverChoice(use);
  }
  const loading = load(false);
  pictures = await examples();
  at('examples').replaceChildren(...[...pictures.keys()].map((name) => {
    const picture = make('img', { src: address(name), alt: `Example ${name}` });
    const button = make('button', { type: 'button', value: name, ariaPressed: 'false' }, picture);
    button.addEventListener('click', () => openExample(name).catch(fail));
    return make('li', {}, button);
  }));
  if (test) {
    await test.run({ open: openExample, openOwn, ask, last: () => last, say });
    return;
  }
  const [usual] = pictures.keys();
  const before = await recallPicture();
  // Meanwhile the user may have chosen one.
  if (chosen === 0) {
    if (before?.blob) await openOwn(before.blob, true);
    else await openExample(pictures.has(before?.example) ? before.example : usual, pictures.has(before?.example));
  }
  await loading;
  await offline.store();
}

stored();
begin().catch(fail);
