// A picture from a camera that the page shows: for machines without an app of their own for it, which phones have (there
// the input with `capture` opens that).

import { at } from './dom.js';
import { FoveaError } from './error.js';

let stream = null;

// Wires button and dialog. `take` is given the picture as a File, `fail` an error that says why there is none.
export function camera(take, fail) {
  at('webcam').hidden = !navigator.mediaDevices?.getUserMedia;
  at('webcam').addEventListener('click', () => open().catch(fail));
  at('snap').addEventListener('click', () => snap(take).catch(fail));
  at('viewfinder').addEventListener('close', close);
}

async function open() {
  // A second press while the browser still asks for leave.
  if (stream) return;
  try {
    stream = navigator.mediaDevices.getUserMedia({ video: { facingMode: 'environment' } });
    stream = await stream;
  } catch (why) {
    stream = null;
    const todo = 'Allow it in the browser\'s address bar, or open a picture instead.';
    throw new FoveaError(`The camera: expected leave to use one, got ${why.name}: ${why.message}. ${todo}`, 'camera');
  }
  at('viewed').srcObject = stream;
  at('viewfinder').showModal();
  await at('viewed').play();
}

async function snap(take) {
  const { videoWidth: width, videoHeight: height } = at('viewed');
  if (!width) return;
  const canvas = Object.assign(document.createElement('canvas'), { width, height });
  canvas.getContext('2d').drawImage(at('viewed'), 0, 0);
  const blob = await new Promise((resolve) => { canvas.toBlob(resolve, 'image/png'); });
  at('viewfinder').close();
  if (!blob) throw new FoveaError('The camera: expected a picture of it, got none.', 'camera');
  take(new File([blob], 'of the camera', { type: blob.type }));
}

// The camera's light goes out.
function close() {
  stream?.getTracks().forEach((track) => track.stop());
  stream = null;
  at('viewed').srcObject = null;
}
