// Under `?report` the demo runs by itself, and tells the server what came of it: for tests in real browsers.

const EXAMPLE = 'rack.jpg';
const QUESTION = 'What word is on the blue sign?';

// Collects the tasks of the page's own thread above 50 ms, from now on. Returns what tells them; null where the browser
// does not.
export function longTasks() {
  if (!PerformanceObserver.supportedEntryTypes.includes('longtask')) return () => null;
  const found = [];
  const take = (entries) => found.push(...entries.map(({ startTime, duration }) => ({ at: startTime, ms: duration })));
  const observer = new PerformanceObserver((list) => take(list.getEntries()));
  observer.observe({ type: 'longtask' });
  return () => {
    take(observer.takeRecords());
    return found;
  };
}

// Opens the example and asks, by the page's own ways. Returns the report.
export async function selfRun({ open, ask, last }, tasks) {
  await open(EXAMPLE);
  await ask(QUESTION);
  const { done: { answer, answer_ids, tokens, timing_ms, device, dtype }, looked: { kept, choice } } = last();
  return { answer, answer_ids, tokens, kept, choice, timing_ms, device, dtype, long_tasks: tasks() };
}
