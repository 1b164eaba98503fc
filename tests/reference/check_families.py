#!/usr/bin/env python3
"""Hold the specification, samplers off, to Hugging Face's own classes on small random checkpoints of every family.

    check_families.py [--only qwen2,onevision] [--work DIR]
    check_families.py --fixtures tests/fixtures [--only bos-0,stock-0]

For several pictures and questions of each preset: pixel_values and input ids bit for bit (ids with every run of image tokens as
one), the number of image tokens, visual tokens and last logits to 1e-5 of their largest value, eight greedy tokens. And scales of
1x1 everywhere give the stock sequence bit for bit. With --fixtures the checkpoints are those of the fixtures, and the stored
traces of their cases without samplers are compared with Hugging Face as well. Prints a line per checkpoint; exit 1 if anything differs.
"""
import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from tokenizers import Tokenizer

import make_checkpoint
import original
from focus_reference import vision_guided

PRESETS = {"bos": {}, "vicuna": {}, "mistral": {}, "qwen2": {}, "qwen2, tied": {"preset": "qwen2", "tied": True}, "llava15": {}, "interleave": {},
           "interleave, untied": {"preset": "interleave", "tied": False}, "onevision": {}, "smolvlm": {}, "smolvlm-odd": {},
           "smolvlm2": {}, "smolvlm2-uncut": {}, "yi": {}, "granite": {}}
SIZES = [(200, 200), (90, 61), (31, 120), (7, 300), (333, 40), (46, 46), (280, 275), (50, 48), (1, 1), (270, 190), (150, 280)]
QUESTIONS = ["What is shown in this image?", "", " two  spaces\n\nand lines\t", "Größe e\u0301 数字 👩‍🚀 ما?"]


def picture(size, seed):
    rng = np.random.default_rng([seed, *size])
    coarse = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
    return Image.fromarray(np.clip(np.asarray(coarse).astype(int) + rng.integers(-20, 21, (size[1], size[0], 3)), 0, 255).astype(np.uint8))


def collapsed(ids, image):
    return [t for i, t in enumerate(ids) if t != image or i == 0 or ids[i - 1] != image]


def with_prompt(focus, image, question):
    """Inputs of Hugging Face's model for the original layout, whose prompt its processor does not know. The picture's id has no row in the
    embedding, so an id that the prompt lacks takes its place."""
    ids, pixels = focus.prompt_ids(question), focus.processor.image_processor(image, return_tensors="pt")
    image_id, free = focus.model.config.image_token_id, next(i for i in range(len(focus.has_token)) if i not in ids)
    at = ids.index(image_id)
    ids = torch.tensor([ids[:at] + [free] * focus.look(image).stock_tokens() + ids[at + 1:]])
    return {**pixels, "input_ids": ids, "attention_mask": torch.ones_like(ids)}, free


def theirs(focus, image, question, new):
    """Hugging Face's way: its processor on the rendered template, its model, its generate."""
    if isinstance(focus, original.Original):
        (inputs, free), image_id = with_prompt(focus, image, question), focus.model.config.image_token_id
        focus.model.config.image_token_id = free
        answer = outputs(focus, inputs, new)
        focus.model.config.image_token_id = image_id
        inputs["input_ids"] = inputs["input_ids"].masked_fill(inputs["input_ids"] == free, image_id)
        return inputs, *answer
    render = focus.processor.apply_chat_template([{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}],
                                                 add_generation_prompt=True, tokenize=False)
    bos = focus.processor.tokenizer.bos_token
    inputs = focus.processor(text=[render], images=[image], return_tensors="pt",
                             **({"add_special_tokens": False} if bos is not None and render.startswith(bos) else {}))
    whole = focus.processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": question}]}], add_generation_prompt=True,
        tokenize=True, return_dict=True, return_tensors="pt")
    assert torch.equal(whole["input_ids"], inputs["input_ids"]), "the two ways of Hugging Face's processor differ"
    file = Tokenizer.from_file(str(focus.dir / "tokenizer.json"))
    assert file.encode(render).ids == focus.processor.tokenizer(render)["input_ids"], "Hugging Face's tokenizer is not what its file says"
    return inputs, *outputs(focus, inputs, new)


def outputs(focus, inputs, new):
    with torch.no_grad():
        logits = focus.model(**inputs).logits[0, -1]
        answer = focus.model.generate(**inputs, max_new_tokens=new, do_sample=False)[0, inputs["input_ids"].shape[1]:]
        features = focus.model.model.get_image_features(
            **{k: v for k, v in inputs.items() if k in ("pixel_values", "image_sizes", "pixel_attention_mask")}).pooler_output
    return logits, answer.tolist(), torch.cat(list(features))


def check(focus, image, question, new=8, stored=None):
    """`stored`: the trace to hold to Hugging Face, in place of one that is made here."""
    trouble, image_id = [], focus.model.config.image_token_id
    inputs, logits, answer, features = theirs(focus, image, question, new)
    with torch.no_grad():
        trace = stored or focus.run(image, question, vision=False, text=False, new_tokens=new)
        seen = focus.look(image)
        scales = {**focus.cfg, "scales": [[1, 1]]}
        weight, bias = torch.zeros(1, len(seen.thumbnail)), torch.zeros(1)
        blocks = [vision_guided(seen.feature_map[y0:y1, x0:x1], seen.thumbnail, seen.newline, weight, bias, scales)[0] for y0, x0, y1, x1 in seen.blocks]
        fine = torch.cat([seen.thumbnail] * (seen.thumbnail_at == "first") + blocks + [seen.thumbnail] * (seen.thumbnail_at == "last"))
    ids = inputs["input_ids"][0].tolist()
    n = ids.count(image_id)
    if collapsed(ids, image_id) != trace["input_ids"].tolist():
        trouble.append(f"input_ids {trace['input_ids'].tolist()} != {collapsed(ids, image_id)}")
    if not torch.equal(inputs["pixel_values"].reshape(trace["pixel_values"].shape), trace["pixel_values"]):
        trouble.append("pixel_values")
    if not n == len(trace["visual_tokens"]) == int(trace["token_counts"][0]):
        trouble.append(f"image tokens {n} != {len(trace['visual_tokens'])}, {int(trace['token_counts'][0])}")
    off = lambda a, b: float((a - b).abs().max() / b.abs().max()) if a.shape == b.shape and a.numel() else float(a.shape != b.shape)
    visual, last = off(trace["visual_tokens"], features), off(trace["prefill_logits"], logits)
    trouble += [f"visual tokens off by {visual:.1e}"] * (visual > 1e-5) + [f"logits off by {last:.1e}"] * (last > 1e-5)
    if seen.feature_map.numel() and not stored and not torch.equal(fine, trace["visual_tokens"]):
        trouble.append("1x1 everywhere is not the stock sequence")
    ours = trace["answer_ids"].tolist()
    real = next((i for i, t in enumerate(answer) if not focus.has_token[t]), len(answer))      # theirs may take a row that is padding
    if ours[:real] != answer[:real]:
        trouble.append(f"answer {ours} != {answer}")
    return trouble, last, n


def asked(fixtures, name):
    """(picture, question, stored trace or none) for one checkpoint: the same of all, and the fixtures' cases without samplers."""
    for i, size in enumerate(SIZES):
        for question in QUESTIONS if i == 0 else QUESTIONS[i % len(QUESTIONS):][:1]:
            yield picture(size, i), question, None
    for case in json.loads((fixtures / "cases.json").read_text()) if fixtures else []:
        if case["model"] == name and set(case["off"]) == {"vision", "text"}:
            yield Image.open(fixtures / case["image"]).convert("RGB"), case["prompt"], load_file(fixtures / "traces" / f"{case['case']}.safetensors")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", default=""), parser.add_argument("--work", type=Path), parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--fixtures", type=Path)
    args = parser.parse_args()
    work, bad = args.work or Path(tempfile.mkdtemp()), 0
    models = {case["model"]: {} for case in json.loads((args.fixtures / "cases.json").read_text())} if args.fixtures else PRESETS
    for name, how in models.items():
        if args.only and name not in args.only.split(","):
            continue
        out = args.fixtures / name if args.fixtures else work / name.replace(", ", "-")
        if not args.fixtures:
            make_checkpoint.build_published(out, args.seed, how.get("preset", name), torch.float32, 1, how.get("tied"))
        focus, worst, counts, traces, runs = original.opened(out), 0.0, set(), 0, 0
        for image, question, stored in asked(args.fixtures, name):
            try:
                trouble, last, n = check(focus, image, question, stored=stored)
            except Exception as e:
                trouble, last, n = [f"{type(e).__name__}: {str(e)[:300]}"], 0.0, 0
            worst, counts, bad, traces, runs = max(worst, last), counts | {n}, bad + bool(trouble), traces + bool(stored), runs + 1
            for t in trouble:
                print(f"  {name} {image.size} {question!r}: {t}")
        kind = f"{type(focus.model).__name__}, {type(focus.processor).__name__}, {type(focus.processor.image_processor).__name__}, {type(focus.processor.tokenizer).__name__}"
        print(f"{name}: {kind}: worst logits {worst:.1e}; image tokens {sorted(counts)}; {runs} runs, {traces} stored traces", flush=True)
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
