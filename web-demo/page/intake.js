// All ways to open a picture: file and camera inputs, drop, paste, also of an address. A model can be dropped, too.
// `take` receives a file or a promise of it, `takeModel` a promise.

import { address, linked } from './linked.js';
import { dropped } from './models.js';

export function intake(inputs, take, takeModel) {
  const first = (files) => {
    if (files?.length > 0) take(files[0]);
    return files?.length > 0;
  };
  const byAddress = (text) => {
    const url = address(text);
    if (url) take(linked(url));
    return url !== null;
  };
  for (const input of inputs) {
    input.addEventListener('change', () => {
      first(input.files);
      // Allows the same file to be picked again.
      input.value = '';
    });
  }
  document.addEventListener('paste', (event) => {
    // An address in a field is text.
    const typed = event.target.closest?.('input, textarea');
    if (first(event.clipboardData?.files) || (!typed && byAddress(event.clipboardData?.getData('text/plain')))) {
      event.preventDefault();
    }
  });
  document.addEventListener('dragover', (event) => {
    event.preventDefault();
    document.body.dataset.drop = '';
  });
  document.addEventListener('dragleave', (event) => {
    // Only if the pointer left the window, not just an element.
    if (event.relatedTarget === null) delete document.body.dataset.drop;
  });
  document.addEventListener('drop', (event) => {
    event.preventDefault();
    delete document.body.dataset.drop;
    const model = dropped(event.dataTransfer);
    if (model) takeModel(model);
    else if (!first(event.dataTransfer?.files)) byAddress(event.dataTransfer?.getData('text/uri-list').split('\n')[0]);
  });
}
