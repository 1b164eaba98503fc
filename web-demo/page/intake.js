// All ways to open a picture: file and camera inputs, drop, paste. A model can be dropped, too: `takeModel` receives a
// promise of it.

import { dropped } from './models.js';

export function intake(inputs, take, takeModel) {
  const first = (files) => {
    if (files?.length > 0) take(files[0]);
    return files?.length > 0;
  };
  for (const input of inputs) {
    input.addEventListener('change', () => {
      first(input.files);
      // Allows the same file to be picked again.
      input.value = '';
    });
  }
  document.addEventListener('paste', (event) => {
    if (first(event.clipboardData?.files)) event.preventDefault();
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
    else first(event.dataTransfer?.files);
  });
}
