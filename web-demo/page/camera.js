// Takes a picture with a camera, in a dialog. Phones open their camera app instead, through the input with `capture`.

import { at } from './dom.js';
import { FoveaError } from './error.js';

let stream = null;

// Connects button and dialog. `take` receives the picture as a File, `fail` an error.
export function camera(take, fail) {
  at('webcam').hidden = !navigator.mediaDevices?.getUserMedia;
  at('webcam').addEventListener('click', () => open().catch(fail));
  at('snap').addEventListener('click', () => snap(take).catch(fail));
  at('viewfinder').addEventListener('close', close);
}

async function open() {
  // Pressed again while the browser still asks for permission.
  if (stream) return;
  try {
    stream = navigator.mediaDevices.getUserMedia({ video: { facingMode: 'environment' } });
    stream = await stream;
  } catch (why) {
    stream = null;
    const todo = 'Allow it in the browser\'s address bar, or open a picture instead.';
    throw new FoveaError(`The camera: expected permission to use it, got ${why.name}: ${why.message}. ${todo}`, 'camera');
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
  if (!blob) throw new FoveaError('The camera: expected a picture, got none. Try again.', 'camera');
  take(new File([blob], 'from the camera', { type: blob.type }));
}

// Switches the camera off.
function close() {
  stream?.getTracks().forEach((track) => track.stop());
  stream = null;
  at('viewed').srcObject = null;
}
