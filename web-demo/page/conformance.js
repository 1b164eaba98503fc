// The conformance page: shows the messages of its worker. With `?report` it also posts them: see checks/report.

import { at, copies, make } from './dom.js';

const test = new URLSearchParams(location.search).has('report') ? await import('./report.js') : null;
const started = performance.now();
const worker = new Worker('./worker.js', { type: 'module' });
let ended = false;

function line(text) {
  const seconds = ((performance.now() - started) / 1000).toFixed(1).padStart(6);
  const log = at('log');
  const below = log.scrollTop + log.clientHeight >= log.scrollHeight - 4;
  log.append(`${seconds} s  ${text}\n`);
  if (below) log.scrollTop = log.scrollHeight;
  test?.post('progress', text);
}

// Ends the run, once, with a sentence and a state for the style sheet.
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
  if (end(sentence)) test?.post('report', { error: sentence });
}

function show(text) {
  let report;
  try {
    report = JSON.parse(text);
  } catch (why) {
    fail(`The engine's report: expected JSON, got ${why.message}.`);
    return;
  }
  const { pass, failures = [] } = report?.verdict ?? {};
  if (typeof pass !== 'boolean') {
    fail('The engine\'s report: expected a verdict, got none.');
    return;
  }
  if (!end(pass ? 'Pass: all results are correct.' : `Fail: ${failures.length} results are wrong.`, pass ? 'pass' : 'fail')) return;
  for (const failure of failures) {
    at('failures').append(make('li', {}, typeof failure === 'string' ? failure : JSON.stringify(failure)));
  }
  at('failures').hidden = failures.length === 0;
  at('report').textContent = JSON.stringify(report, null, 2);
  at('result').hidden = false;
  test?.post('report', { report });
}

worker.addEventListener('message', ({ data }) => {
  if (ended) return;
  if ('line' in data) line(data.line);
  if ('device' in data) {
    at('device').textContent = data.device;
    at('verdict').textContent = 'Running.';
    line(data.device);
  }
  if ('error' in data) fail(data.error);
  if ('report' in data) show(data.report);
});
// Failures that the worker cannot report itself.
worker.addEventListener('error', (event) => fail(`The worker stopped: ${event.message || 'it did not load'}.`));
worker.addEventListener('messageerror', () => fail('The worker sent a message that can\'t be read.'));

copies(at('copy'), at('report'));
