// Every way for a picture to come in: picked or taken by the camera (`inputs`), dropped on the page, pasted. A model may be
// dropped as well: `takeModel` is given a promise of it.

import { dropped } from './models.js';

export function intake(inputs, take, takeModel) {
  const first = (files) => {
    if (files?.length > 0) take(files[0]);
    return files?.length > 0;
  };
  for (const input of inputs) {
    input.addEventListener('change', () => {
      first(input.files);
      // So that the same file can be picked again.
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
    // The pointer has left the window, not only an element of it.
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
