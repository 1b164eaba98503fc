// Counts the bytes of this worker's GPU buffers, which no browser reports. A buffer counts from its creation until it is
// destroyed or, because wgpu leaves that to the garbage collector, collected.

let bytes = 0;
const sizes = new WeakMap();
const collected = new FinalizationRegistry((size) => { bytes -= size; });

// The bytes; null if no GPU is used.
export const held = () => (bytes > 0 ? bytes : null);

if (globalThis.GPUDevice) {
  const make = GPUDevice.prototype.createBuffer;
  GPUDevice.prototype.createBuffer = function createBuffer(descriptor) {
    const buffer = make.call(this, descriptor);
    bytes += buffer.size;
    sizes.set(buffer, buffer.size);
    collected.register(buffer, buffer.size, buffer);
    return buffer;
  };
  const destroy = GPUBuffer.prototype.destroy;
  GPUBuffer.prototype.destroy = function destroyBuffer() {
    bytes -= sizes.get(this) ?? 0;
    sizes.delete(this);
    collected.unregister(this);
    destroy.call(this);
  };
}
