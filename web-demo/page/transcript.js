// Shows the turns of a conversation, the newest last, with buttons to copy, edit and ask again.

import { at, copies, make } from './dom.js';

const list = at('turns');
let acts = { edit() {}, again() {} };

// `edit` receives the index of a turn; `again` asks the last question again.
export function connect(given) {
  acts = given;
}

// Adds a turn; shows its answer as far as there is one.
export function add(turn) {
  const index = list.children.length;
  const asked = make('p', {}, turn.question);
  const answer = make('p', { className: 'text', textContent: turn.answer });
  const edit = make('button', { type: 'button' }, 'Edit');
  const copy = make('button', { type: 'button' }, 'Copy');
  const again = make('button', { type: 'button', className: 'again' }, 'Ask again');
  edit.addEventListener('click', () => acts.edit(index));
  again.addEventListener('click', () => acts.again());
  copies(copy, answer);
  const mark = make('p', { className: 'note soft' });
  list.append(make('article', { className: 'turn', ariaLabel: `Question ${index + 1}` },
    make('div', { className: 'question' }, asked, edit),
    make('div', { className: 'answer' }, answer, mark, make('p', { className: 'acts' }, copy, again))));
  list.hidden = false;
  if (turn.end !== null) finish(turn);
  else list.ariaBusy = 'true';
  follow();
}

// Adds text to the last answer.
export function grow(text) {
  const below = list.scrollTop + list.clientHeight >= list.scrollHeight - 40;
  last('.text').append(text);
  if (below) follow();
}

// Empties the last answer: it begins again.
export function restart() {
  last('.text').textContent = '';
}

// Shows the end of the last turn.
export function finish({ answer, end, why }) {
  const text = answer.trim();
  list.ariaBusy = 'false';
  list.lastChild.dataset.end = end;
  last('.text').textContent = text;
  last('.text').hidden = !text;
  last('.acts button').hidden = !text;
  last('.note').textContent = {
    stopped: 'Stopped.',
    length: 'Cut off: the answer has its largest length. Raise it in "Answer settings".',
    failed: `No answer: ${why}`,
  }[end] ?? (text ? '' : 'The model gave an empty answer.');
  follow();
}

// Shows only the first `count` turns.
export function cut(count) {
  while (list.children.length > count) list.lastChild.remove();
  list.ariaBusy = 'false';
  list.hidden = count === 0;
}

const last = (selector) => list.lastChild.querySelector(selector);

function follow() {
  list.scrollTop = list.scrollHeight;
}
