// What the browser tells of its GPU before an engine opens it: what it is and has, or `why` there is none.

export async function gpu() {
  if (!navigator.gpu) {
    return { why: 'This browser has no WebGPU here: expected navigator.gpu, got nothing. It needs https or localhost, and a browser that has it switched on.' };
  }
  const adapter = await navigator.gpu.requestAdapter({ powerPreference: 'high-performance' });
  if (!adapter) return { why: 'This browser has WebGPU, but no adapter: expected one, got null. chrome://gpu or about:support says why.' };
  const { vendor, architecture, device, description, isFallbackAdapter } = adapter.info;
  return {
    name: [vendor, architecture, device, description].filter(Boolean).join(' ') || 'a GPU that the browser does not name',
    software: Boolean(isFallbackAdapter),
    f16: adapter.features.has('shader-f16'),
    subgroups: adapter.features.has('subgroups'),
    binding: adapter.limits.maxStorageBufferBindingSize,
  };
}
