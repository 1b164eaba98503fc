// The question field: suggestions, earlier questions (Arrow Up), and a question that is edited.

import { turns } from './conversation.js';
import { at, make } from './dom.js';

// The question that the page itself has put into the field.
let offered = '';
// The turn from which a question is asked again; null to add a turn.
let editing = null;
// Counts back from the last question.
let recalled = 0;

// `ask` receives a question, and the number of turns before it.
export function connect(ask) {
  at('form').addEventListener('submit', (event) => {
    event.preventDefault();
    ask(at('question').value, count());
  });
  at('question').addEventListener('keydown', (event) => {
    const step = { ArrowUp: 1, ArrowDown: -1 }[event.key];
    if (step) {
      event.preventDefault();
      bringBack(step);
    }
    if (event.key === 'Escape' && editing !== null) at('keep').click();
  });
  at('keep').addEventListener('click', () => {
    edit(null);
    at('question').value = '';
    at('question').focus();
  });
}

// The number of turns that stay before the next question.
export const count = () => editing ?? turns.length;

// Offers questions about a picture. What the user has typed stays.
export function suggest(questions, ask) {
  if (['', offered].includes(at('question').value)) {
    offered = turns.length === 0 ? questions[0] ?? '' : '';
    at('question').value = offered;
  }
  at('chips').replaceChildren(...questions.map((question) => {
    const chip = make('button', { type: 'button' }, question);
    chip.addEventListener('click', () => ask(question, count()));
    return make('li', {}, chip);
  }));
}

// Puts the question of a turn into the field, to ask it again in other words; null ends that.
export function edit(index) {
  editing = index;
  at('editing').hidden = index === null;
  if (index === null) return;
  at('question').value = turns[index].question;
  at('question').focus();
}

// Empties the field after its question was asked.
export function asked(question) {
  edit(null);
  recalled = 0;
  if (at('question').value === question) at('question').value = '';
}

// Puts an earlier question into the field: `step` 1 for the one before, -1 for the one after.
function bringBack(step) {
  const index = recalled + step;
  if (index < 0 || index > turns.length) return;
  recalled = index;
  at('question').value = index === 0 ? '' : turns.at(-index).question;
}
