// Small things that every page does with its elements.

export const at = (id) => document.getElementById(id);

// A new element with these properties, and these children or texts in it.
export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

// Rows whose first cell is their name, under names of columns where there are some; one without a name is no header. A
// caption stays.
export function table(element, rows, columns) {
  const name = (words) => (words ? make('th', { scope: 'col' }, words) : make('td'));
  const head = columns && make('thead', {}, make('tr', {}, ...columns.map(name)));
  const body = make('tbody', {}, ...rows.map(([words, ...cells]) => {
    return make('tr', {}, make('th', { scope: 'row' }, words), ...cells.map((cell) => make('td', {}, cell)));
  }));
  element.replaceChildren(...[element.caption, head, body].filter(Boolean));
}

// Lets a button copy the text of an element.
export function copies(button, element) {
  const words = button.textContent;
  button.addEventListener('click', async () => {
    try {
      await navigator.clipboard.writeText(element.textContent);
      button.textContent = 'Copied';
    } catch {
      // Not allowed: the text is selected, and the reader copies it.
      element.closest('details')?.setAttribute('open', '');
      getSelection().selectAllChildren(element);
      button.textContent = 'Selected';
    }
    setTimeout(() => { button.textContent = words; }, 2000);
  });
}
