// Published checkpoints that fit a browser. The sizes are rounded: "Check" asks the hub for the exact size.

export const PUBLISHED = [
  {
    id: 'HuggingFaceTB/SmolVLM-256M-Instruct',
    size: 'About 513 MB',
    licence: 'Apache-2.0',
    good: 'The smallest and fastest: descriptions and simple questions.',
    tiles: 'Up to 17 tiles, 64 tokens each.',
  },
  {
    id: 'HuggingFaceTB/SmolVLM-500M-Instruct',
    size: 'About 1.02 GB',
    licence: 'Apache-2.0',
    good: 'As the smaller SmolVLM, with better answers, also about text in pictures.',
    tiles: 'Up to 17 tiles, 64 tokens each.',
  },
  {
    id: 'llava-hf/llava-interleave-qwen-0.5b-hf',
    size: 'About 1.7 GB',
    licence: 'Tongyi Qianwen research licence, see the model\'s page',
    good: 'General questions about the whole picture; it does not see small details.',
    tiles: '1 tile, 729 tokens.',
  },
  {
    id: 'llava-hf/llava-onevision-qwen2-0.5b-ov-hf',
    size: 'About 1.79 GB',
    licence: 'Apache-2.0',
    good: 'Small details, documents and charts in large pictures; the slowest.',
    tiles: 'Up to 37 tiles, about 7,400 tokens in all.',
  },
];
