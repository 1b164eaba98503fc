#!/usr/bin/env python3
"""Measure one question about one picture in PyTorch eager on the CPU: the baseline for the speed of Fovea.

    pytorch_eager.py --model DIR --image FILE --question TEXT [--new 16] [--mode off|vision|text|both] [--threads 2] [--repeat 3] [--json]

Float32, eager attention, batch 1. `off` is LLaVA-NeXT of Hugging Face as published, with greedy decoding as in `generate`:
one prefill, then one step per token. The other modes run the executable specification (tests/reference/focus_reference.py).
That code is written for readers: its vision-guided sampler is a Python loop, so do not compare `sampler`. `prefill` and
`decode` are dense PyTorch operations and can be compared.

Each run makes exactly --new tokens, without a stop token, so that runs can be compared.
"""
import argparse
import json
import sys
import time
from pathlib import Path

import torch
import transformers
from PIL import Image, ImageOps
from transformers import DynamicCache
from transformers.utils import logging

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "reference"))
import focus_reference                                                          # noqa: E402

STAGES = ("image", "vision", "sampler", "prefill", "decode", "total")


def stock(focus, image, question, new):
    """LLaVA-NeXT of Hugging Face. Returns the seconds per stage, the ids of the answer, and the numbers of tokens."""
    model, inner, clock = focus.model, focus.model.model, time.perf_counter
    start = clock()
    pixels = focus.processor.image_processor(image, return_tensors="pt")
    seen = clock()
    visual = inner.get_image_features(pixels["pixel_values"], pixels["image_sizes"], return_dict=True).pooler_output[0]
    encoded = clock()
    ids = focus.prompt_ids(question)
    at = ids.index(model.config.image_token_id)
    embed = inner.get_input_embeddings()
    text = embed(torch.tensor(ids))
    hidden, cache = torch.cat([text[:at], visual, text[at + 1:]])[None], DynamicCache(config=model.config.get_text_config())
    step = lambda embeds: int(model.lm_head(inner.language_model(inputs_embeds=embeds, past_key_values=cache, use_cache=True).last_hidden_state[:, -1]).argmax())
    answer = [step(hidden)]
    filled = clock()
    while len(answer) < new:
        answer.append(step(embed(torch.tensor([answer[-1:]]))))
    end = clock()
    seconds = {"image": seen - start, "vision": encoded - seen, "sampler": 0.0, "prefill": filled - encoded, "decode": end - filled, "total": end - start}
    return seconds, answer, [len(visual)] * 3


def sampled(focus, image, question, new, vision, text):
    """The specification, with timers around its parts."""
    clock, spent, first_layer, marks = time.perf_counter, {"image": 0.0, "sampler": 0.0}, focus.llm.layers[0], []

    def timed(name, f):
        def call(*args, **kwargs):
            start = clock()
            try:
                return f(*args, **kwargs)
            finally:
                spent[name] += clock() - start
        return call

    kept = focus.encode, focus.attend, focus.processor.image_processor, focus_reference.vision_guided, focus.model.generation_config.eos_token_id
    encode, attend = focus.encode, focus.attend
    encoded = []

    def marked_encode(*args):
        result = encode(*args)
        encoded.append(clock())
        return result

    def marked_attend(layer, *args):
        if layer is first_layer:
            marks.append(clock())                                               # the start of the prefill, then of each step
        return attend(layer, *args)

    try:
        focus.encode, focus.attend = marked_encode, marked_attend
        focus.processor.image_processor = timed("image", kept[2])
        focus_reference.vision_guided = timed("sampler", kept[3])
        focus.model.generation_config.eos_token_id = None                       # no early stop
        start = clock()
        trace = focus.run(image, question, vision, text, new)
        end = clock()
    finally:
        del focus.encode, focus.attend
        focus.processor.image_processor, focus_reference.vision_guided, focus.model.generation_config.eos_token_id = kept[2:]
    filled = marks[1] if len(marks) > 1 else end
    seconds = {"image": spent["image"], "vision": encoded[0] - start - spent["image"] - spent["sampler"], "sampler": spent["sampler"],
               "prefill": filled - encoded[0], "decode": end - filled, "total": end - start}
    return seconds, trace["answer_ids"].tolist(), trace["token_counts"].tolist()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--image", type=Path, required=True)
    parser.add_argument("--question", required=True)
    parser.add_argument("--new", type=int, default=16)
    parser.add_argument("--mode", choices=["off", "vision", "text", "both"], default="off")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=3, help="runs after one warm-up run; the run with the median total is reported")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    logging.set_verbosity_error(), logging.disable_progress_bar()
    start = time.perf_counter()
    focus = focus_reference.Focus(args.model)
    load = time.perf_counter() - start
    image = ImageOps.exif_transpose(Image.open(args.image)).convert("RGB")
    once = (lambda: stock(focus, image, args.question, args.new)) if args.mode == "off" else (
        lambda: sampled(focus, image, args.question, args.new, args.mode != "text", args.mode != "vision"))
    with torch.inference_mode():
        if args.repeat > 1:
            once()
        runs = sorted((once() for _ in range(args.repeat)), key=lambda run: run[0]["total"])
    seconds, answer, counts = runs[len(runs) // 2]
    steps = max(args.new - 1, 0)
    report = {"engine": "pytorch-eager", "mode": args.mode, "model": str(args.model), "image": list(image.size), "threads": args.threads, "dtype": "float32",
              "torch": torch.__version__, "transformers": transformers.__version__, "tokens": counts, "new": len(answer), "load_s": load,
              **{f"{name}_s": seconds[name] for name in STAGES}, "decode_per_token_s": seconds["decode"] / steps if steps else None,
              "answer_ids": answer, "answer": focus.processor.tokenizer.decode(answer, skip_special_tokens=True)}
    if args.json:
        print(json.dumps(report))
    else:
        for name, value in report.items():
            print(f"{name:20} {f'{value:.4f}' if isinstance(value, float) else value}")


if __name__ == "__main__":
    main()
