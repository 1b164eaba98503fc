// The conversation about the picture. A turn is a question and its answer: { question, answer, end, why }, where `end` is how the
// answer ended: `stop` (by itself), `length` (cut off), `stopped` (by the user), `failed` (with a sentence in `why`), or null
// while it runs.

import { keep, recall } from './memory.js';

const NAME = 'conversation';

// Without these, nothing is shown.
const stored = recall(NAME);
const isTurn = (turn) => typeof turn?.question === 'string' && typeof turn?.answer === 'string';
export const turns = Array.isArray(stored) ? stored.filter(isTurn) : [];

// The messages for a question after these turns. A model reads only turns with an answer: a template may refuse two questions
// in a row.
export function messages(question, { system, before }) {
  const said = before.filter(({ answer }) => answer.trim()).flatMap((turn) => [
    { role: 'user', content: turn.question },
    { role: 'assistant', content: turn.answer },
  ]);
  const first = system.trim() ? [{ role: 'system', content: system }] : [];
  return [...first, ...said, { role: 'user', content: question }];
}

// Removes all turns after the first `count`.
export function cut(count) {
  turns.length = Math.min(turns.length, count);
  save();
}

export function save() {
  const ended = turns.filter(({ end }) => end !== null);
  keep(NAME, ended.length > 0 ? ended : null);
}
