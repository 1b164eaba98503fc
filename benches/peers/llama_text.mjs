// llama.cpp through node-llama-cpp, text only: prefill of a prompt of ids that occur in every checkpoint of the benches, then
// greedy decoding. Called by compare.py, with one JSON argument. Prints one line of JSON.

const { module, path, prompt, fresh, gpu, threads } = JSON.parse(process.argv[2]);
const { getLlama } = await import(module);
const llama = await getLlama({ gpu, build: "never", logLevel: "error", maxThreads: threads });
const model = await llama.loadModel({ modelPath: path, gpuLayers: gpu ? "max" : 0 });
const context = await model.createContext({ contextSize: prompt + fresh + 64, batchSize: 2048, threads });
const sequence = context.getSequence();
const ids = Array.from({ length: prompt }, (_, at) => 10 + (at * 31) % 100);
if (gpu) {
    // The first run compiles the shaders.
    await sequence.evaluateWithoutGeneratingNewTokens(ids);
    await sequence.clearHistory();
}
const start = performance.now();
await sequence.evaluateWithoutGeneratingNewTokens(ids);
const filled = performance.now();
let tokens = 0, first = 0;
for await (const _ of sequence.evaluate([11], { temperature: 0 })) {
    if (tokens === 0) first = performance.now();
    tokens += 1;
    if (tokens > fresh) break;
}
const decode = (tokens - 1) / (performance.now() - first) * 1000;
console.log(JSON.stringify({ gpu: llama.gpu, prefill_s: (filled - start) / 1000, decode_tokens_per_s: decode }));
process.exit(0);
