#!/usr/bin/env python3
"""Compare Fovea's traces with the specification's on random checkpoints that are not fixtures.

    other_seeds.py --fovea PROGRAM [--seeds 21,22] [--only qwen2,smolvlm] [--pictures 12] [--work DIR]

For each seed and each form of a published checkpoint it writes a checkpoint (dtype, number of shards and tying follow from the
seed), and compares whole runs: pictures from 1x1 to 2000x500, questions in several scripts and with special tokens typed, each
sampler on and off. Integers must be equal, pixels equal, other stages within NMSE 1e-8, logits within 1e-3. A run that differs
and whose own decision hangs on rounding (a hundredth of the fixtures' margins) is counted apart. Exit 1 if any other differs.
"""
import argparse
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
import torch
from safetensors.torch import load_file

import make_checkpoint
import original
from check_families import picture
from focus_reference import Focus
from make_fixtures import FLOORS, margins

FORMS = ("bos", "vicuna", "mistral", "qwen2", "yi", "llava15", "interleave", "onevision", "smolvlm", "smolvlm-odd", "granite",
         "original-vicuna", "original-mistral", "original-qwen")
ORIGINAL = {"vicuna": "LlavaLlamaForCausalLM", "mistral": "LlavaMistralForCausalLM", "qwen": "LlavaQwenForCausalLM"}
SIZES = [(1, 1), (7, 300), (300, 7), (46, 46), (48, 48), (50, 48), (96, 96), (280, 275), (333, 40), (640, 480), (2000, 500), (27, 31), (400, 1),
         (2, 3), (55, 110), (184, 138), (276, 92), (500, 2000), (61, 92), (97, 145), (144, 48), (1000, 999)]
QUESTIONS = ["What is shown in this image?", "  two  spaces\n\nand lines\t", "Größe e\u0301 数字 👩‍🚀 ما 12 345?", "x", "0123456789 ½ ①", "ﬁ é Å",
             "User: hi\nAssistant:", "{{ x }}"]
TYPED = ["hi <image> and <image>", "<|im_end|>", "<row_1_col_1>", "<fake_token_around_image>", "</s>", "<|eot_id|><|begin_of_text|>"]
COMPRESSIONS = ("focus", "text", "vision", "none")


def checkpoint(work, form, seed):
    dtype, shards = (torch.float32, torch.float16, torch.bfloat16)[seed % 3], 1 + seed // 3 % 3
    out = work / f"{form}-{seed}"
    if form.startswith("original-"):
        original.write(out, ORIGINAL[form.removeprefix("original-")], seed, dtype, shards)
        return out, original.opened(out), QUESTIONS                 # its specification refuses typed special tokens
    tied = {"qwen2": seed % 2 == 0, "interleave": seed % 2 == 0}.get(form)
    make_checkpoint.build_published(out, seed, form, dtype, shards, tied)
    return out, Focus(out), QUESTIONS + TYPED


def differences(expected, got):
    for stage, a in sorted(expected.items()):                       # a run has more stages, which describe its compression
        b = got.get(stage)
        if b is None or a.shape != b.shape:
            yield f"{stage}: expected {tuple(a.shape)}, got {None if b is None else tuple(b.shape)}"
        elif not a.is_floating_point() or stage == "pixel_values":
            if not torch.equal(a.double(), b.double()):
                yield f"{stage}: not equal"
        elif a.numel():
            error = (a.double() - b.double())
            nmse, most = float(error.square().sum() / a.double().square().sum().clamp_min(1e-30)), float(error.abs().max())
            if most > 1e-3 if stage in ("prefill_logits", "step_logits") else nmse > 1e-8:
                yield f"{stage}: NMSE {nmse:.1e}, largest difference {most:.1e}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--fovea", default="fovea"), parser.add_argument("--seeds", default="21"), parser.add_argument("--only", default="")
    parser.add_argument("--pictures", type=int, default=12), parser.add_argument("--work", type=Path)
    args = parser.parse_args()
    work, bad = args.work or Path(tempfile.mkdtemp()), 0
    work.mkdir(parents=True, exist_ok=True)
    for seed in map(int, args.seeds.split(",")):
        for form in filter(None, args.only.split(",")) if args.only else FORMS:
            out, focus, questions = checkpoint(work, form, seed)
            dice, unsure, wrong = random.Random(seed), 0, 0
            for i, size in enumerate(dice.sample(SIZES, min(args.pictures, len(SIZES)))):
                image, question, compression = picture(size, seed + i), dice.choice(questions), COMPRESSIONS[i % 4]
                image.save(work / "picture.png")
                expected = focus.run(image, question, compression in ("focus", "vision"), compression in ("focus", "text"), 8)
                command = [args.fovea, "trace", work / "picture.png", "--model", out, "--device", "cpu", "--max-new-tokens", "8",
                           "--out", work / "trace.safetensors", "--compress", compression, "--", question]
                done = subprocess.run(command, capture_output=True, text=True)
                found = [done.stderr] if done.returncode else list(differences(expected, load_file(work / "trace.safetensors")))
                if found and any(m is not None and m < FLOORS[k] / 100 for k, m in margins(focus, expected).items()):
                    unsure, found = unsure + 1, []
                for line in found:
                    print(f"  {form} seed {seed} {size} {question!r} {compression}: {line}")
                wrong += bool(found)
            bad += wrong
            print(f"{form} seed {seed}: {min(args.pictures, len(SIZES))} runs, {wrong} differ, {unsure} hang on rounding", flush=True)
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
