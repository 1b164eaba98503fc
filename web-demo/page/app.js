// The demo: a picture, a question, the answer as it comes, and what the model looked at for it.

import { another } from './another.js';
import { camera } from './camera.js';
import { at, copies, make } from './dom.js';
import { address, examples, file } from './examples.js';
import { gpu } from './gpu.js';
import { intake } from './intake.js';
import { needs, showNeeds, usable } from './needs.js';
import { STAGES, duration, mebibytes, showComparison, showCost, showTokens } from './numbers.js';
import { poster, reporting, run } from './post.js';
import { playRecording, stopRecording } from './recording.js';
import { longTasks, selfRun } from './self-run.js';
import { REPLACED, Session } from './session.js';
import { showOverlay, showPicture } from './view.js';

// How long a slider rests before what it says is carried out, in milliseconds.
const REST = 60;

// What is said of a GPU that is none, and whether it is used all the same, as tests want it.
const SOFTWARE = 'This browser\'s GPU is drawn by the CPU, so the model runs on the CPU itself: the same answers, sooner. A browser with hardware '
  + 'acceleration switched on has a real one.';
const anyGpu = reporting || new URLSearchParams(location.search).has('gpu');

const tasks = reporting ? longTasks() : null;
const post = poster((sentence) => show(sentence, 'fail'));
const session = new Session((why) => {
  // What comes back has looked at nothing yet.
  if (last) last.settings = {};
  restarted = ` The engine had to be started again: ${why}`;
  at('answer').textContent = '';
  say(`Starting again, and asking the same: ${why}`);
});

// The model that was chosen, { name, files }; null stands for the demo's.
let model = null;
let pictures = new Map();
// How many pictures were chosen so far.
let chosen = 0;
// Opens the picture that was chosen last once more.
let reopen = () => {};
// The last question that was answered: the question, the answer (`done`), what was `looked` at, and by which `settings`.
let last = null;
let running = new AbortController();
// What is computed ahead of a question.
let ahead = new AbortController();
let current = Promise.resolve();
let resting = 0;
let restarted = '';

function show(sentence, kind) {
  at('status').textContent = sentence;
  at('status').dataset.kind = kind;
}

function say(sentence, kind = '') {
  show(sentence, kind);
  post('progress', sentence);
}

function fail(why) {
  if (why?.name === 'AbortError') {
    say('Stopped.');
    return;
  }
  const sentence = why?.message ?? String(why);
  say(sentence, 'fail');
  post('report', { error: sentence });
}

function become(state) {
  document.body.dataset.state = state;
  at('asking').disabled = state === 'loading';
  at('settings').disabled = state !== 'ready';
  at('stop').disabled = state !== 'busy';
  at('answer').ariaBusy = String(state === 'busy');
}

// One thing at a time: what is under way is stopped, and what waited is forgotten, before the next begins. While it does,
// the page is in `state`.
function instead(state, work) {
  clearTimeout(resting);
  running.abort(REPLACED);
  const { signal } = running = new AbortController();
  current = current.then(async () => {
    if (signal.aborted) {
      // Stopped while it waited for what it took the place of. What was replaced has nothing more to say.
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
      // What was replaced has nothing more to say.
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
  // How far, nobody knows before the first word of the engine.
  at('loading').removeAttribute('value');
  stopRecording();
  const options = async () => {
    const onCpu = cpu || !await findGpu();
    say(`Loading ${model?.name ?? 'the demo model'}${onCpu ? ' on the CPU' : ''}.`);
    return {
      cpu: onCpu,
      files: model?.files,
      // Tests compare with f32.
      dtype: reporting ? 'f32' : 'auto',
      onProgress: ({ stage, done, total }) => { at('loading').value = (done / total + (stage === 'loading')) / 2; },
      onLine: (line) => post('progress', line),
    };
  };
  try {
    const about = await session.start(options());
    settle(about);
    say([`Ready, on ${about.device}: ${mebibytes(about.weight_bytes)} of weights in ${about.dtype}.`, ...notes(about)].join(' '));
  } catch (why) {
    // Who took this one's place shows what comes.
    if (why === REPLACED) return;
    fail(why);
    at('rescue').hidden = cpu || ['checkpoint', 'unsupported'].includes(why?.code);
    if (!reporting && !model && ['engine', 'worker', 'unsupported'].includes(why?.code)) playRecording().catch(fail);
  }
  at('loading').hidden = true;
}

// Loads another model than before, and opens the same picture with it.
function use(next) {
  model = next;
  last = null;
  at('after').hidden = true;
  at('demo-note').hidden = model !== null;
  load(false);
  reopen();
}

// Shows what this browser has, and what to do where that is no GPU. Returns whether it is one to be used.
async function findGpu() {
  const found = await gpu();
  const used = usable(found, anyGpu);
  showNeeds(at('needs'), at('needs-todo'), needs(found));
  if (found.software && !used) at('needs-todo').replaceChildren(make('li', {}, SOFTWARE));
  return used;
}

// What a user should know of a model.
const notes = ({ trained, notes: said }) => [
  ...said.map((note) => `${note}.`),
  ...(trained ? [] : ['This checkpoint was not trained with the samplers: both are off, and every visual token is used. '
    + 'Switch the text-guided sampler on to use fewer.']),
];

// Lets the settings say what the checkpoint says.
function settle({ layers, selector, trained, focus }) {
  at('vision').checked = selector && trained;
  at('vision').disabled = !selector;
  at('gamma').value = focus.gamma;
  at('layer').max = layers - 1;
  at('layer').value = focus.text_layer ?? layers - 1;
  at('text').checked = trained && focus.text_layer !== null;
  told();
}

// The picture.

// Of two that are chosen soon after each other the later one counts, whichever arrives first.
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

// Opens a picture. An example is known to be one and is shown at once; another the engine may still refuse.
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
  // Where a question is under way, it takes a moment to stop.
  if (session.isOpen) say('Opening the picture.');
  return instead('loading', async () => {
    if (example) await present();
    const loaded = session.isOpen;
    await session.open(blob);
    if (!example) await present();
    // The first picture waits for the model, which says itself that it is ready.
    if (loaded || !example) say('Ready.');
    prepare();
  });
}

// Computes what no question changes while the reader thinks of one. Whatever goes wrong, the question will tell.
function prepare() {
  ahead.abort(REPLACED);
  const { signal } = ahead = new AbortController();
  session.prepare({ ...settings(), signal }).catch(() => {});
}

// The question.

const settings = () => ({
  vision: at('vision').checked,
  text: at('text').checked,
  gamma: at('gamma').valueAsNumber,
  layer: at('layer').valueAsNumber,
});

function ask(question) {
  at('question').value = question;
  return instead('busy', async (signal) => {
    const asked = settings();
    let looked = null;
    // Where this is stopped, the engine may have looked already.
    if (last) last.settings = {};
    at('answer').textContent = '';
    at('compared').hidden = true;
    restarted = '';
    say('Answering.');
    const started = performance.now();
    const done = await session.ask(question, { ...asked, signal }, (event) => {
      if (event.progress) say(`Answering: ${far(event.progress)}.`);
      if (event.token) at('answer').append(event.token.text);
      if (event.looked) {
        looked = event.looked;
        showTokens(looked.tokens);
      }
    });
    say(`Answered in ${duration(performance.now() - started)}.${restarted}`);
    last = { question, done, looked, settings: asked };
    showCost(done);
    at('json').textContent = JSON.stringify(done, null, 2);
    at('after').hidden = false;
    await overlay();
  });
}

// How far a stage is that takes long.
const far = ({ stage, done, total }) => `${STAGES[stage] ?? stage}, ${Math.floor(100 * done / Math.max(1, total))} %`;

// Draws what was looked at.
async function overlay() {
  const { question, looked: { tokens } } = last;
  const words = `What the model looked at for "${question}": ${tokens.text} of ${tokens.vision} tokens stay, bright; the rest is dark.`;
  await showOverlay(await session.overlay(), words, last.looked);
}

// Shows what would be looked at by other settings, without an answer. Another gamma alone computes nothing anew.
function relook() {
  return instead('ready', async (signal) => {
    if (!last) return;
    const now = settings();
    const deep = !now.text || ['vision', 'text', 'layer'].some((key) => now[key] !== last.settings[key]);
    last.looked = deep ? await session.look(last.question, { ...now, signal }) : await session.keep(now.gamma);
    last.settings = now;
    showTokens(last.looked.tokens);
    await overlay();
    say('Shown is what these settings would look at; the answer is still that of before.');
  });
}

function told() {
  at('gamma-is').value = at('gamma').valueAsNumber.toFixed(2);
  at('layer-is').value = `${at('layer').value} of ${Number(at('layer').max) + 1}`;
  at('gamma').disabled = at('layer').disabled = !at('text').checked;
}

function compare() {
  const { question } = last;
  return instead('busy', async (signal) => {
    const set = settings();
    say('Asking twice, each time from the picture on.');
    const answers = await session.compare(question, [
      { ...set, signal },
      { ...set, vision: false, text: false, signal },
    ]);
    showComparison(['with the samplers as set', 'with all tokens'], answers);
    at('compared').hidden = false;
    say('Compared.');
  });
}

// What can be done on the page.

at('form').addEventListener('submit', (event) => {
  event.preventDefault();
  ask(at('question').value);
});
at('stop').addEventListener('click', () => {
  running.abort();
  // A question waits for what is computed ahead of it.
  ahead.abort();
  at('question').focus();
});
at('settings').addEventListener('input', () => {
  told();
  clearTimeout(resting);
  // Computed ahead with other settings, it would be of no use.
  ahead.abort(REPLACED);
  resting = setTimeout(last ? relook : prepare, REST);
});
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
  if (!reporting) {
    if (chosen === 0) await openExample(pictures.keys().next().value);
    return;
  }
  const page = { open: openExample, openOwn, ask, last: () => last, say };
  const runOf = run === 'models' ? (await import('./models-run.js')).modelsRun : selfRun;
  post('report', { report: await runOf(page, tasks) });
}

begin().catch(fail);
