// How much of the GPU's memory this worker's buffers take. No browser tells, so they are counted as they are made, and
// again as they are destroyed or, since wgpu leaves that to JavaScript's collector, collected: what is only garbage so far
// still counts, as it does on the GPU.

let bytes = 0;
const sizes = new WeakMap();
const collected = new FinalizationRegistry((size) => { bytes -= size; });

// The bytes; null where there is no GPU in use.
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
