// The demo page: a picture, a question, the streamed answer, and the attention overlay.

import { another } from './another.js';
import { camera } from './camera.js';
import { chooser, compared, compression, offer, otherGamma } from './chooser.js';
import { at, copies, make } from './dom.js';
import { address, examples, file } from './examples.js';
import { intake } from './intake.js';
import { gpu, needs, showNeeds, usable } from './needs.js';
import { STAGES, duration, overlayOf, showComparison, showCost, showTokens, size } from './numbers.js';
import { playRecording, stopRecording } from './recording.js';
import { REPLACED, Session } from './session.js';
import { showOverlay, showPicture } from './view.js';

// A change of the settings takes effect after this pause, in milliseconds.
const REST = 60;

// With `?report` a test's server adds report.js, which runs the page by itself: see checks/report.
const parameters = new URLSearchParams(location.search);
const test = parameters.has('report') ? await import('./report.js') : null;
const anyGpu = test !== null || parameters.has('gpu');

const session = new Session((why) => {
  // The new engine has no overlay yet.
  if (last) last.compression = null;
  restarted = ` The engine was restarted: ${why}`;
  at('answer').textContent = '';
  say(`Restarting the engine, then asking again: ${why}`);
});

// The chosen model, { name, files }; null is the demo model.
let model = null;
let pictures = new Map();
// Counts the pictures chosen so far.
let chosen = 0;
// Opens the current picture again.
let reopen = () => {};
// The last answer: the question, the whole answer (`done`), what was `looked` at, and its `compression` (null: none of it is known).
let last = null;
let running = new AbortController();
// Stops the work that is done before the next question.
let ahead = new AbortController();
let current = Promise.resolve();
let resting = 0;
let restarted = '';

function say(sentence, kind = '') {
  at('status').textContent = sentence;
  at('status').dataset.kind = kind;
  test?.post('progress', sentence);
}

function fail(why) {
  if (why?.name === 'AbortError') {
    say('Stopped.');
    return;
  }
  const sentence = why?.message ?? String(why);
  say(sentence, 'fail');
  test?.post('report', { error: sentence });
}

function become(state) {
  document.body.dataset.state = state;
  at('asking').disabled = state === 'loading';
  at('settings').disabled = state !== 'ready';
  at('stop').disabled = state !== 'busy';
  at('answer').ariaBusy = String(state === 'busy');
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
        at('rescue').hidden = session.isOpen || !['device', 'device-lost', 'worker'].includes(why?.code);
      }
    }
    become(session.isOpen ? 'ready' : 'loading');
  });
  return current;
}

// The engine.

async function load(cpu) {
  at('rescue').hidden = true;
  at('loading').hidden = false;
  // Indeterminate until the engine reports progress.
  at('loading').removeAttribute('value');
  stopRecording();
  const options = async () => {
    const onCpu = cpu || !await findGpu();
    say(`Loading ${model?.name ?? 'the demo model'}${onCpu ? ' on the CPU' : ''}.`);
    return {
      cpu: onCpu,
      files: model?.files,
      // Tests compare with f32.
      dtype: test ? 'f32' : at('weights').value,
      onProgress: ({ stage, done, total }) => { at('loading').value = (done / total + (stage === 'loading')) / 2; },
      onLine: (line) => test?.post('progress', line),
    };
  };
  try {
    const about = await session.start(options());
    offer(about);
    say([`Ready, on ${about.device}: ${size(about.weight_bytes)} of weights in ${about.dtype}.`, ...notes(about)].join(' '));
  } catch (why) {
    // The newer call shows its own result.
    if (why === REPLACED) return;
    fail(why);
    at('rescue').hidden = cpu || ['checkpoint', 'unsupported'].includes(why?.code);
    if (!test && !model && ['engine', 'worker', 'unsupported'].includes(why?.code)) playRecording().catch(fail);
  }
  at('loading').hidden = true;
}

// Loads another model, and opens the same picture with it.
function use(next) {
  model = next;
  last = null;
  at('after').hidden = true;
  at('demo-note').hidden = model !== null;
  load(false);
  reopen();
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

// Notes about a model for its user.
const notes = ({ trained, notes: said }) => [
  ...said.map((note) => `${note}.`),
  ...(trained ? [] : ['This checkpoint was not trained with FocusLLaVA\'s samplers, so it reads every visual token. '
    + 'Choose a method in the settings to use fewer tokens.']),
];

// The picture.

// If two pictures are chosen quickly one after the other, the later one counts, in whatever order they arrive.
async function openExample(name) {
  const mine = chosen += 1;
  const blob = await file(name);
  if (mine !== chosen) return;
  await open({ blob, words: `The example ${name}`, questions: pictures.get(name), example: name });
}

function openOwn(blob) {
  chosen += 1;
  return open({ blob, words: `Your picture ${blob.name}`, questions: [], example: null });
}

// Opens a picture. An example is shown at once; the engine may still refuse a user's file.
function open(picture) {
  reopen = () => open(picture);
  ahead.abort(REPLACED);
  const { blob, words, questions, example } = picture;
  const present = async () => {
    last = null;
    at('answer').textContent = '';
    at('tokens').replaceChildren();
    at('after').hidden = true;
    at('question').value = questions[0] ?? '';
    at('chips').replaceChildren(...questions.map((question) => {
      const chip = make('button', { type: 'button' }, question);
      chip.addEventListener('click', () => ask(question));
      return make('li', {}, chip);
    }));
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
    // The first picture waits for the model; `load` then sets the status.
    if (loaded || !example) say('Ready.');
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

function ask(question) {
  at('question').value = question;
  return instead('busy', async (signal) => {
    const asked = compression();
    let looked = null;
    // If this is stopped, the engine may already have another overlay.
    if (last) last.compression = null;
    at('answer').textContent = '';
    at('compared').hidden = true;
    restarted = '';
    say('Answering.');
    const started = performance.now();
    const done = await session.ask(question, { compression: asked, signal }, (event) => {
      if (event.progress) say(`Answering: ${far(event.progress)}.`);
      if (event.token) at('answer').append(event.token.text);
      if (event.looked) {
        looked = event.looked;
        showTokens(looked.tokens);
      }
    });
    say(`Answered in ${duration(performance.now() - started)}.${restarted}`);
    last = { question, done, looked, compression: done.compression };
    showCost(done);
    at('json').textContent = JSON.stringify(done, null, 2);
    at('after').hidden = false;
    await overlay();
  });
}

// Progress of a long stage.
const far = ({ stage, done, total }) => `${STAGES[stage] ?? stage}, ${Math.floor(100 * done / Math.max(1, total))} %`;

// Draws the attention overlay.
async function overlay() {
  const { question, looked } = last;
  await showOverlay(await session.overlay(), overlayOf(question, looked.tokens), looked);
}

// Shows the overlay for another compression, without an answer. If only gamma changed, nothing is computed.
function relook() {
  return instead('ready', async (signal) => {
    if (!last) return;
    const now = compression();
    const pruned = last.compression && last.looked.visual_tokens.some(({ rank }) => rank !== null);
    const gamma = pruned ? otherGamma(last.compression, now) : null;
    last.looked = gamma === null ? await session.look(last.question, { compression: now, signal }) : await session.keep(gamma);
    last.compression = last.looked.compression;
    showTokens(last.looked.tokens);
    await overlay();
    say('The overlay shows the new settings; the answer is still the old one.');
  });
}

function compare() {
  const { question } = last;
  return instead('busy', async (signal) => {
    const methods = compared();
    say('Asking twice, each time from scratch.');
    const answers = await session.compare(question, methods.map((method) => ({ compression: method.compression, signal })));
    showComparison(methods.map(({ title }) => title), answers);
    at('compared').hidden = false;
    say('Compared.');
  });
}

// Buttons and inputs.

at('form').addEventListener('submit', (event) => {
  event.preventDefault();
  ask(at('question').value);
});
at('stop').addEventListener('click', () => {
  running.abort();
  // A question waits for the work that was started before it.
  ahead.abort();
  at('question').focus();
});
chooser((spec) => {
  // The engine would finish it first.
  ahead.abort(REPLACED);
  return session.check(spec);
}, () => {
  clearTimeout(resting);
  // Work for the old settings is useless now.
  ahead.abort(REPLACED);
  resting = setTimeout(last ? relook : prepare, REST);
});
at('weights').addEventListener('change', () => use(model));
at('compare').addEventListener('click', compare);
at('cpu').addEventListener('click', () => {
  load(true);
  reopen();
});
copies(at('copy'), at('json'));
intake([at('file'), at('camera')], openOwn, another(use));
camera(openOwn, fail);

async function begin() {
  load(false);
  pictures = await examples();
  at('examples').replaceChildren(...[...pictures.keys()].map((name) => {
    const picture = make('img', { src: address(name), alt: `Example ${name}` });
    const button = make('button', { type: 'button', value: name, ariaPressed: 'false' }, picture);
    button.addEventListener('click', () => openExample(name).catch(fail));
    return make('li', {}, button);
  }));
  if (test) await test.run({ open: openExample, openOwn, ask, last: () => last, say });
  else if (chosen === 0) await openExample(pictures.keys().next().value);
}

begin().catch(fail);
