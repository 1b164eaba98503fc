/** Types of `fovea.js`. */

/** What to open, and on what. */
export interface CreateOptions {
  /** Run on the CPU instead of the GPU: slow, but it needs no WebGPU. */
  cpu?: boolean;
  /** What matrices are kept in; `auto` is f16 where most weights have 16 bits and the GPU has f16. */
  dtype?: 'auto' | 'f32' | 'f16';
  /**
   * A LLaVA-NeXT checkpoint's files by name, such as those of `<input type="file" webkitdirectory>`; without them the demo
   * checkpoint, from the folder `demo` beside this file. They are read by `Blob.slice`, a few MiB at a time, and again by the next engine that is given them.
   */
  files?: Map<string, Blob>;
  /** Ends the loading. */
  signal?: AbortSignal;
  onProgress?: (progress: Progress) => void;
  /** Is told what the engine writes on its console. */
  onLine?: (line: string) => void;
}

/** Every value is checked, then loaded. In bytes. */
export interface Progress {
  stage: 'checking' | 'loading';
  done: number;
  total: number;
}

export interface About {
  device: string;
  dtype: 'f32' | 'f16';
  weight_bytes: number;
  /** Decoder layers. */
  layers: number;
  /** Side of a tile in pixels. */
  tile: number;
  /** Whether the vision-guided sampler can run. */
  selector: boolean;
  /** Settings of the samplers. `text_layer` is null where nothing is pruned unless a layer is given. */
  focus: {
    window: number;
    scales: string[];
    text_layer: number | null;
    gamma: number;
    score_rope: boolean;
    thumbnail: boolean;
  };
  /** Whether it was trained with the samplers. If not, both are off unless a question switches them on. */
  trained: boolean;
  /** What a user should know of it, each a sentence. */
  notes: string[];
}

/** How a question is to be answered. */
export interface AskOptions {
  /** Whether the vision-guided sampler is on; by default it is where the checkpoint was trained with it. */
  vision?: boolean;
  /** Whether the text-guided sampler is on; by default it is where the checkpoint was trained with it. */
  text?: boolean;
  /** Its threshold, above 0 and at most 1; the checkpoint's by default. */
  gamma?: number;
  /** The decoder layer whose input it prunes; the checkpoint's by default. */
  layer?: number;
  /** 128 by default. */
  maxNewTokens?: number;
  /** Stops the answer within a layer or a token. */
  signal?: AbortSignal;
}

/** Counts of visual tokens: LLaVA-NeXT's own, after the vision-guided sampler, after the text-guided one. */
export interface Tokens {
  stock: number;
  vision: number;
  text: number;
}

/** What the model looked at. */
export interface Looked {
  tokens: Tokens;
  /** Rows and columns of the map, in patches. */
  map: [number, number];
  /** Side of a region in patches. */
  window: number;
  /** The scales that regions choose from, such as `4x4`. */
  scales: string[];
  /** Index of every region's scale, raster order; empty without the vision-guided sampler. */
  choice: number[];
  /** How many visual tokens are the thumbnail's; they come first. */
  thumbnail: number;
  /** Patches of each token after the thumbnail's: y0, x0 inclusive; y1, x1 exclusive. A newline's lie right of the map. */
  boxes: [number, number, number, number][];
  /** The same in the picture's pixels: left, top, right, bottom. Null for a newline. */
  rects: ([number, number, number, number] | null)[];
  /** Width and height of the picture. */
  picture: [number, number];
  /** Width and height that `overlay` draws the picture in: at the top of the drawing, in the middle. */
  drawn: [number, number];
  /** Importance of every visual token; empty without the text-guided sampler. */
  importance: number[];
  /** Indices of the visual tokens that the upper layers saw, rising. */
  kept: number[];
}

/** One of the visual tokens that were looked at. */
export interface VisualToken {
  /** Its place among all visual tokens. */
  index: number;
  /** The thumbnail's tokens come first; a newline ends a row of the map. */
  part: 'thumbnail' | 'map' | 'newline';
  /** Its patches, as in `Looked.boxes`; null for the thumbnail's. */
  box: [number, number, number, number] | null;
  /** Its pixels, as in `Looked.rects`; null where it is not on the map. */
  rect: [number, number, number, number] | null;
  /** The scale of its region, such as `4x4`; null off the map, and without the vision-guided sampler. */
  scale: string | null;
  /** How much it mattered to the question; null without the text-guided sampler. */
  importance: number | null;
  /** Its place by importance among all visual tokens, 1 for the most important; null alike. */
  rank: number | null;
  /** Whether the upper layers saw it. */
  kept: boolean;
}

/** What was looked at, token by token, in the order of `Looked.importance`. */
export function visualTokens(looked: Looked): VisualToken[];

/** A part of the way to an answer; one that was reused from an earlier question is left out. */
export type Stage =
  | 'prompt' | 'tiles' | 'vision_tower' | 'vision_sampler' | 'image_prefill' | 'text_sampler' | 'prefill' | 'decode';

/** A whole answer, as `fovea ask --json` prints it. */
export interface Done {
  question: string;
  answer: string;
  answer_ids: number[];
  tokens: Tokens;
  /** Tokens per layer, averaged, over LLaVA-NeXT's. */
  equivalent_share: number;
  timing_ms: Partial<Record<Stage, number>> & { first_token: number };
  tokens_per_second: number | null;
  /** `gpu`: all buffers that the engine has there, null on the CPU. `wasm`: the memory of the module, which never shrinks. */
  memory_bytes: { weights: number; kv_cache: number; host_peak: number | null; gpu: number | null; wasm: number };
  device: string;
  dtype: 'f32' | 'f16';
}

/** Stages as they end, what was looked at once, tokens as they come, and the whole last. An event is one of them. */
export type AskEvent = {
  stage?: Stage;
  /** How long the stage took. */
  milliseconds?: number;
  /** How far a stage is that takes long; a few times a second. */
  progress?: { stage: Stage; done: number; total: number };
  looked?: Looked;
  token?: { id: number; text: string };
  done?: Done;
};

/**
 * What went wrong, as a sentence. `worker`: the engine stopped, `device-lost`: the GPU did; after both a new engine must be
 * created. `unsupported`: the browser lacks what no engine runs without. An abort rejects with the signal's reason instead.
 */
export class FoveaError extends Error {
  readonly code:
    | 'option' | 'too-long' | 'picture' | 'checkpoint' | 'device' | 'device-lost' | 'memory' | 'stopped' | 'engine'
    | 'worker' | 'unsupported' | 'disposed';
  /** What was expected and what came, where the error is told of a value apart from its sentence. */
  readonly expected?: string;
  readonly got?: string;
}

/** An engine, in a worker of its own. */
export class Fovea {
  private constructor();
  static create(options?: CreateOptions): Promise<Fovea>;
  readonly about: About;
  /** Opens a png, jpeg, webp, gif or bmp file. Decoding itself can't be stopped: the signal counts until it begins. */
  lookAt(picture: Blob | ArrayBuffer | Uint8Array, options?: { signal?: AbortSignal }): Promise<Sight>;
  /** Ends the worker and gives its memory back; whatever is under way is rejected. */
  dispose(): void;
}

/** A picture that can be asked about. Calls are carried out one after another. */
export interface Sight {
  /**
   * Computes what no question changes, while nobody waits for it, and on a GPU answers a question that nobody hears, once
   * for an engine, so that its pipelines are there: then the first question is answered sooner. A question that is asked
   * meanwhile waits for it.
   */
  prepare(options?: AskOptions): Promise<void>;
  /** Answers a question. What depends on the picture alone is computed once. Leaving the loop stops the answer. */
  ask(question: string, options?: AskOptions): AsyncGenerator<AskEvent, void, void>;
  /** Only finds what would be looked at. */
  look(question: string, options?: AskOptions): Promise<Looked>;
  /** What would have been kept at another gamma, by the importance that the last question gave. Computes nothing anew. */
  keep(gamma: number): Promise<Looked>;
  /** What was looked at last, drawn over the picture, with a legend: a PNG file. */
  overlay(): Promise<Blob>;
  /** Forgets the picture. */
  close(): Promise<void>;
}
