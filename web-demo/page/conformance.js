// The page around the worker: shows what it tells, and with `?report` also sends it to the server the page came from.

import { at, copies, make } from './dom.js';
import { poster } from './post.js';

const started = performance.now();
const worker = new Worker('./worker.js', { type: 'module' });
const post = poster((sentence) => end(sentence));
let ended = false;

function line(text) {
  const seconds = ((performance.now() - started) / 1000).toFixed(1).padStart(6);
  const log = at('log');
  const below = log.scrollTop + log.clientHeight >= log.scrollHeight - 4;
  log.append(`${seconds} s  ${text}\n`);
  if (below) log.scrollTop = log.scrollHeight;
  post('progress', text);
}

// The end, once: a sentence, and how the page looks under it.
function end(sentence, state = 'fail') {
  if (ended) return false;
  ended = true;
  worker.terminate();
  document.body.dataset.state = state;
  document.title = `${state}: ${document.title}`;
  at('verdict').textContent = sentence;
  return true;
}

function fail(sentence) {
  if (end(sentence)) post('report', { error: sentence });
}

function show(text) {
  let report;
  try {
    report = JSON.parse(text);
  } catch (why) {
    fail(`The engine's report is not JSON: ${why.message}.`);
    return;
  }
  const { pass, failures = [] } = report?.verdict ?? {};
  if (typeof pass !== 'boolean') {
    fail('The engine\'s report says neither pass nor fail.');
    return;
  }
  if (!end(pass ? 'Pass: all is as expected.' : `Fail: ${failures.length} not as expected.`, pass ? 'pass' : 'fail')) return;
  for (const failure of failures) {
    at('failures').append(make('li', {}, typeof failure === 'string' ? failure : JSON.stringify(failure)));
  }
  at('failures').hidden = failures.length === 0;
  at('report').textContent = JSON.stringify(report, null, 2);
  at('result').hidden = false;
  post('report', { report });
}

worker.addEventListener('message', ({ data }) => {
  if (ended) return;
  if ('line' in data) line(data.line);
  if ('device' in data) {
    at('device').textContent = data.device;
    line(data.device);
  }
  if ('error' in data) fail(data.error);
  if ('report' in data) show(data.report);
});
// What the worker could not tell itself: it did not load, or it could not be understood.
worker.addEventListener('error', (event) => fail(`The worker stopped: ${event.message || 'it did not load'}.`));
worker.addEventListener('messageerror', () => fail('The worker told something that can\'t be read.'));

copies(at('copy'), at('report'));
