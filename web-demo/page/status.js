// The status line of the page.

import { at } from './dom.js';
import { STAGES } from './numbers.js';

// With `?report` a test's server adds report.js, which runs the page by itself: see checks/report.
export const test = new URLSearchParams(location.search).has('report') ? await import('./report.js') : null;

export function say(sentence, kind = '') {
  at('status').textContent = sentence;
  at('status').dataset.kind = kind;
  test?.post('progress', sentence);
}

export function fail(why) {
  if (why?.name === 'AbortError') {
    say('Stopped.');
    return;
  }
  const sentence = why?.message ?? String(why);
  say(sentence, 'fail');
  test?.post('report', { error: sentence });
}

export const hasFailed = () => at('status').dataset.kind === 'fail';

// Progress of a long stage.
export const far = ({ stage, done, total }) => `${STAGES[stage] ?? stage}, ${Math.floor(100 * done / Math.max(1, total))} %`;
