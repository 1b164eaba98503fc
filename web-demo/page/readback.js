// Shortens read-backs in Firefox.
//
// Firefox looks for finished work of the GPU every 100 ms (POLL_TIME_MS in its WebGPUParent.cpp, Mozilla's bug 1870699), and at
// each submit. An answer reads one number back per token, so there were at most ten tokens per second. While a buffer is being
// mapped, this submits an empty list every few milliseconds.

// In milliseconds: the shortest that browsers grant to repeated timers.
const PAUSE = 4;

if (globalThis.GPUBuffer && /\bFirefox\//.test(navigator.userAgent)) {
  let queue = null;
  const { requestDevice } = GPUAdapter.prototype;
  GPUAdapter.prototype.requestDevice = async function requestDeviceAndQueue(...given) {
    const device = await requestDevice.apply(this, given);
    ({ queue } = device);
    return device;
  };
  const { mapAsync } = GPUBuffer.prototype;
  GPUBuffer.prototype.mapAsync = function mapAsyncSoon(...given) {
    const timer = setInterval(() => {
      try {
        queue?.submit([]);
      } catch {
        clearInterval(timer); // The read-back is only slower.
      }
    }, PAUSE);
    return mapAsync.apply(this, given).finally(() => clearInterval(timer));
  };
}
