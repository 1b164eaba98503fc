/** Types of `fovea.js`. */

/** Options of `Fovea.create`. */
export interface CreateOptions {
  /** Run on the CPU instead of the GPU: slow, but it needs no WebGPU. */
  cpu?: boolean;
  /**
   * How the matrices are stored on the device. `auto`: as in the files if they are quantised; f16 if most weights are stored in 16
   * bits and the GPU supports f16; else f32. If that does not fit into memory, the best of f16, q8 and q4 that fits.
   */
  dtype?: 'auto' | Dtype;
  /** How the KV cache is stored. `auto`: as the matrices that are not quantised. */
  cache?: 'auto' | CacheDtype;
  /**
   * The memory that the model may use, in bytes. By default on the CPU what WebAssembly can still address, on a GPU no limit. A
   * model that needs more is refused with the code `memory`.
   */
  memory?: number;
  /**
   * The number of threads on the CPU, 1 to 64, where the page is cross-origin isolated; elsewhere there is one. Default: the
   * processor's, at most 8, and 1 for a checkpoint of less than 32 MiB.
   */
  threads?: number;
  /**
   * The files of a checkpoint of the LLaVA family by name, such as those of `<input type="file" webkitdirectory>`; by default the demo
   * checkpoint, from the folder `demo` beside this file. In GGUF these are two files, the text model and its mmproj file. They are
   * read with `Blob.slice`, a few MiB at a time.
   */
  files?: Map<string, Blob>;
  /** Stops loading. */
  signal?: AbortSignal;
  onProgress?: (progress: Progress) => void;
  /** Receives the lines of the engine's console. */
  onLine?: (line: string) => void;
}

/** f16 needs half of the memory of f32, q8 about half of f16, q4 about a third of f16; with q4, answers can differ. */
export type Dtype = 'f32' | 'f16' | 'q8' | 'q4';

/** f16 needs half of the memory of f32. */
export type CacheDtype = 'f32' | 'f16';

/** Progress in bytes: first all values are checked, then loaded. */
export interface Progress {
  stage: 'checking' | 'loading';
  done: number;
  total: number;
}

/** Description of an engine. */
export interface About {
  device: string;
  dtype: Dtype;
  weight_bytes: number;
  /** How the KV cache is stored. */
  cache: CacheDtype;
  /** The memory that the model may use, in bytes; null without a limit. */
  memory: number | null;
  /** The threads that are used: that of the worker and of its helpers. */
  threads: number;
  /** Decoder layers. */
  layers: number;
  /** Side of a tile in pixels. */
  tile: number;
  /** The compression of a question that does not choose one. */
  compression: string;
  /** The methods that this checkpoint can run, except `focus` and `none`. */
  methods: Method[];
  /** Settings of FocusLLaVA's samplers. If `text_layer` is null, `text` prunes only if a question gives a layer. */
  focus: {
    window: number;
    scales: string[];
    text_layer: number | null;
    gamma: number;
    score_rope: boolean;
    thumbnail: boolean;
  };
  /** Whether the checkpoint was trained with FocusLLaVA's samplers. If not, its default compression is `none`. */
  trained: boolean;
  /** Notes for the user, one sentence each. */
  notes: string[];
}

/** A method that reduces the number of visual tokens. */
export interface Method {
  /** Its name in a compression. */
  name: string;
  title: string;
  /** What it does, in a sentence. */
  about: string;
  /** The paper. */
  source: string;
  /** Whether it chooses the tokens that enter the text model, or drops tokens inside it. */
  place: 'before' | 'within';
  /** The compression with this method and its default settings. */
  default: string;
}

/** A message of a conversation. */
export interface Message {
  /** `system`: general instructions, only as the first message. */
  role: 'system' | 'user' | 'assistant';
  /** A text, or parts with the place of the picture. Without a place, the picture comes before the first question. */
  content: string | ({ type: 'image' } | { type: 'text'; text: string })[];
}

/** Options of a question. */
export interface AskOptions {
  /**
   * Which visual tokens enter the text model and which leave it, spelled as on the command line: `none`, `focus:gamma=0.8`,
   * `fastv:layer=2,keep=0.5`, `faster-vlm:keep=64+text`. Default: `About.compression`.
   */
  compression?: string;
  /** Default: 128. */
  maxNewTokens?: number;
  /** 0, the default: the most likely token. Above 0: tokens are sampled; higher values give more varied answers. */
  temperature?: number;
  /** Sample from the fewest most likely tokens whose probabilities reach this sum. Default: 1, from all. */
  topP?: number;
  /** The same seed gives the same sampled answer. Default: 0. */
  seed?: number;
  /** Texts that end the answer and are not part of it. */
  stop?: string[];
  /** Stops the answer within a layer or a token. */
  signal?: AbortSignal;
}

/** Counts of visual tokens: without compression, entering the text model, and in its last layer. */
export interface Tokens {
  all: number;
  compressed: number;
  kept: number;
}

/** The attention of the model to a picture, for one question. */
export interface Looked {
  compression: string;
  tokens: Tokens;
  /** Rows and columns of the map, in patches. */
  map: [number, number];
  /** Side of a region in patches. */
  window: number;
  /** The scales that regions choose from, such as `4x4`. */
  scales: string[];
  /** Index of every region's scale, raster order; empty without the vision-guided sampler. */
  choice: number[];
  /** Width and height of the picture. */
  picture: [number, number];
  /** Width and height of the picture in the image of `overlay`: at the top, centred horizontally. */
  drawn: [number, number];
  /** Indices of the visual tokens in the last decoder layer, ascending. */
  kept: number[];
  /** All visual tokens, in the order of the sequence. */
  visual_tokens: VisualToken[];
}

/** One visual token. */
export interface VisualToken {
  /** Index among all visual tokens. */
  index: number;
  /** A newline ends a row of the map; a class token stands for a whole tile. */
  part: 'thumbnail' | 'map' | 'newline' | 'class';
  /**
   * Its patches of the map: y0, x0 inclusive; y1, x1 exclusive. Several boxes for a merged token, none for the thumbnail and a class
   * token. The box of a newline is right of the map.
   */
  boxes: [number, number, number, number][];
  /** The rectangles of the boxes that are on the picture, in its pixels: left, top, right, bottom. */
  rects: [number, number, number, number][];
  /** The scale of its region, such as `4x4`; null if it is not on the map, or without the vision-guided sampler. */
  scale: string | null;
  /** Its share of the importance of all visual tokens, 0 to 1. Null if nothing was pruned inside the model. */
  importance: number | null;
  /** Rank by importance among all visual tokens; 1 is the most important. Null if nothing was pruned inside the model. */
  rank: number | null;
  /** Whether the last decoder layer uses it. */
  kept: boolean;
}

/** A stage of an answer. A stage that is reused from an earlier question is left out. */
export type Stage =
  | 'prompt' | 'tiles' | 'vision_tower' | 'compress' | 'image_prefill' | 'prune' | 'prefill' | 'decode';

/** A whole answer, as `fovea ask --json` prints it. */
export interface Done {
  question: string;
  answer: string;
  answer_ids: number[];
  /** `stop`: the answer ended by itself. `length`: it has `maxNewTokens` tokens, and is cut off. */
  finish_reason: 'stop' | 'length';
  /** The compression that ran. */
  compression: string;
  tokens: Tokens;
  /** Work left: mean visual tokens per decoder layer, as a share of all. */
  equivalent_share: number;
  timing_ms: Partial<Record<Stage, number>> & { first_token: number };
  tokens_per_second: number | null;
  /** `gpu`: all GPU buffers of the engine, null on the CPU. `wasm`: the memory of the wasm module and of its helpers, which never shrinks. */
  memory_bytes: { weights: number; kv_cache: number; host_peak: number | null; gpu: number | null; wasm: number };
  device: string;
  dtype: Dtype;
  /** How the KV cache is stored. */
  cache: CacheDtype;
  /** How the matrices of the vision tower are stored. */
  tower: 'f32' | 'f16' | 'q8';
  /** How the inputs of products with many rows are stored. */
  activations: 'f32' | 'int8';
}

/** An event has one of these: a finished stage with its milliseconds, progress, `looked` once, a token, or at the end `done`. */
export type AskEvent = {
  stage?: Stage;
  /** Duration of the stage. */
  milliseconds?: number;
  /** Progress of a long stage, a few times per second. */
  progress?: { stage: Stage; done: number; total: number };
  looked?: Looked;
  token?: { id: number; text: string };
  done?: Done;
};

/**
 * An error with a sentence as its message. `worker`: the engine stopped; `device-lost`: the GPU was lost; after both, create a
 * new engine. `network`: a file of the page did not arrive. `unsupported`: the browser lacks a required feature. An abort rejects with the signal's reason instead.
 */
export class FoveaError extends Error {
  readonly code:
    | 'option' | 'too-long' | 'picture' | 'checkpoint' | 'device' | 'device-lost' | 'memory' | 'stopped' | 'engine'
    | 'worker' | 'network' | 'unsupported' | 'disposed';
  /** The expected and the actual value, for some errors. */
  readonly expected?: string;
  readonly got?: string;
}

/** An engine, in its own worker. */
export class Fovea {
  private constructor();
  static create(options?: CreateOptions): Promise<Fovea>;
  readonly about: About;
  /** Checks whether a compression fits the checkpoint; returns its shortest spelling. Otherwise rejects with the code `option`. */
  check(compression: string): Promise<string>;
  /** Opens a png, jpeg, webp, gif or bmp file. The signal has no effect once decoding has begun. */
  lookAt(picture: Blob | ArrayBuffer | Uint8Array, options?: { signal?: AbortSignal }): Promise<Sight>;
  /** Ends the worker and frees its memory. Running calls are rejected. */
  dispose(): void;
}

/** An open picture. Calls run one after another. */
export interface Sight {
  /**
   * Optional: does the work that does not depend on the question, so that the first answer comes sooner. On a GPU it also
   * answers a question once per engine, to compile all pipelines. A question that is asked meanwhile waits for it.
   */
  prepare(options?: AskOptions): Promise<void>;
  /**
   * Answers a question, or the last message of a conversation. The caller keeps the conversation and sends all of it. Work that
   * depends only on the picture is done once. Leaving the loop stops the answer.
   */
  ask(question: string | Message[], options?: AskOptions): AsyncGenerator<AskEvent, void, void>;
  /** Computes the attention only, without an answer. */
  look(question: string | Message[], options?: AskOptions): Promise<Looked>;
  /**
   * The kept tokens at another gamma, from the importance of the last question, for which the text-guided sampler must have pruned.
   * Nothing is computed on the device.
   */
  keep(gamma: number): Promise<Looked>;
  /** The attention overlay of the last question, with a legend: a PNG file. */
  overlay(): Promise<Blob>;
  /** Closes the picture. */
  close(): Promise<void>;
}
