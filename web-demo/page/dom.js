// Helpers for elements of a page.

export const at = (id) => document.getElementById(id);

// A new element with properties and children.
export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

// Shows what is wrong with the text of a field; an empty sentence removes it.
export function complain(id, sentence) {
  at(`${id}-error`).textContent = sentence;
  at(id).ariaInvalid = sentence ? 'true' : null;
}

// Fills a table. The first cell of each row is its header; `columns` are optional headers. A caption stays.
export function table(element, rows, columns) {
  const name = (words) => (words ? make('th', { scope: 'col' }, words) : make('td'));
  const head = columns && make('thead', {}, make('tr', {}, ...columns.map(name)));
  const body = make('tbody', {}, ...rows.map(([words, ...cells]) => {
    return make('tr', {}, make('th', { scope: 'row' }, words), ...cells.map((cell) => make('td', {}, cell)));
  }));
  element.replaceChildren(...[element.caption, head, body].filter(Boolean));
}

// Makes a button copy the text of an element.
export function copies(button, element) {
  const words = button.textContent;
  button.addEventListener('click', async () => {
    try {
      await navigator.clipboard.writeText(element.textContent);
      button.textContent = 'Copied';
    } catch {
      // No permission: the text is selected instead, and the user copies it.
      element.closest('details')?.setAttribute('open', '');
      getSelection().selectAllChildren(element);
      button.textContent = 'Selected';
    }
    setTimeout(() => { button.textContent = words; }, 2000);
  });
}
