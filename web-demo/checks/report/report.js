// Lets a page run by itself and report to the test that serves it (`tests/web.rs`). A page that is opened with `?report`
// imports this file; the test's server adds it to the page's folder.

import { at } from './dom.js';

const EXAMPLE = 'rack.jpg';
const QUESTION = 'What word is on the blue sign?';

let posts = Promise.resolve();

// Posts text, or anything else as JSON: `progress` on the way, `report` at the end. Posts arrive in order.
export function post(to, what) {
  const body = typeof what === 'string' ? what : JSON.stringify(what);
  posts = posts.then(() => fetch(to, { method: 'POST', body })).catch((why) => console.error(`${to}: ${why.message}`));
}

// Tasks above 50 ms on the page's thread since this file was loaded. Only Chromium reports them.
const tasks = [];
const take = (entries) => tasks.push(...entries.map(({ startTime, duration }) => ({ at: startTime, ms: duration })));
const observer = new PerformanceObserver((list) => take(list.getEntries()));
const observes = PerformanceObserver.supportedEntryTypes.includes('longtask');
if (observes) observer.observe({ type: 'longtask' });

// Runs the demo through the functions that its buttons call, and posts the report.
export async function run(page) {
  const models = new URLSearchParams(location.search).get('report') === 'models';
  const found = await (models ? (await import('./models-run.js')).modelsRun(page) : selfRun(page));
  take(observer.takeRecords());
  post('report', { report: { ...found, status: at('status').textContent, long_tasks: observes ? tasks : null } });
}

async function selfRun({ open, ask, last }) {
  await open(EXAMPLE);
  await ask(QUESTION);
  const { done: { answer, answer_ids, tokens, timing_ms, device, dtype }, looked: { kept, choice } } = last();
  return { answer, answer_ids, tokens, kept, choice, timing_ms, device, dtype };
}
