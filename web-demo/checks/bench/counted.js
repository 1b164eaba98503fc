// Counts the engine's WebGPU calls. `bench.mjs` puts this before the engine's worker. Every event of the worker gets another
// key, `counted`, with the counts so far.

const counted = { shaders: 0, pipelines: 0, buffers: 0, groups: 0, writes: 0, passes: 0, dispatches: 0, submits: 0, reads: 0, waited: 0 };

function counts(type, method, what) {
  const original = globalThis[type]?.prototype[method];
  if (!original) return;
  globalThis[type].prototype[method] = function (...given) {
    counted[what] += 1;
    return original.apply(this, given);
  };
}

counts('GPUDevice', 'createShaderModule', 'shaders');
counts('GPUDevice', 'createComputePipeline', 'pipelines');
counts('GPUDevice', 'createComputePipelineAsync', 'pipelines');
counts('GPUDevice', 'createBuffer', 'buffers');
counts('GPUDevice', 'createBindGroup', 'groups');
counts('GPUQueue', 'writeBuffer', 'writes');
counts('GPUQueue', 'submit', 'submits');
counts('GPUCommandEncoder', 'beginComputePass', 'passes');
counts('GPUComputePassEncoder', 'dispatchWorkgroups', 'dispatches');
counts('GPUComputePassEncoder', 'dispatchWorkgroupsIndirect', 'dispatches');
counts('GPUBuffer', 'mapAsync', 'reads');

// Time that read-backs took, in milliseconds.
if (globalThis.GPUBuffer) {
  const map = GPUBuffer.prototype.mapAsync;
  GPUBuffer.prototype.mapAsync = async function (...given) {
    const from = performance.now();
    await map.apply(this, given);
    counted.waited += performance.now() - from;
  };
}

const post = self.postMessage.bind(self);
self.postMessage = (message, ...rest) => {
  if (message.event) message.event.counted = { ...counted };
  post(message, ...rest);
};
