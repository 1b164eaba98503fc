#!/usr/bin/env python3
"""Write tests/fixtures/ from scratch, all but awkward/, compressed/ and dialogues.json: checkpoints, pictures, traces, prompt ids, token counts, resized pictures.

    make_fixtures.py --add                                 what is missing; all that is there stays as it is
    make_fixtures.py [--out DIR] [--only PART] [--fresh]   everything, or one part

Without --add, run make_compressed.py and make_dialogues.py afterwards: pictures/ has pictures of their cases too.

The decisions in a trace (which scale, which tokens survive, which word comes next) must not hang on rounding, or the
fixtures would test the summation order of PyTorch. So each case takes the first picture, by rising seed, on which every
decision has a margin; the margins are in cases.json.
"""
import argparse
import functools
import hashlib
import json
import math
import random
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from safetensors.torch import save_file
from torchvision.transforms.v2 import functional as tvF
from transformers import AutoModelForImageTextToText, Idefics3ImageProcessor
from transformers.image_utils import SizeDict
from transformers.models.idefics3.image_processing_idefics3 import get_resize_output_image_size
from transformers.models.llava_next.modeling_llava_next import get_anyres_image_grid_shape, unpad_image
from transformers.models.llava_next.processing_llava_next import LlavaNextProcessor
from transformers.utils import logging

import families
import make_checkpoint as base
import original
import published
import variants

NEW = 8
FLOORS = {"scale": 1e-3, "text_share": 1e-5, "text_score": 1e-5, "greedy": 1e-2}

CHECKPOINTS = {
    "tiny-0": lambda out: base.build(out, 0, "tiny", torch.float32, 1),
    "tiny-1": lambda out: (base.build(out, 1, "tiny", torch.float16, 1), variants.older_side_files(out)),
    "seven-0": lambda out: (base.build(out, 0, "seven", torch.bfloat16, 1), base.reshard(out, 3)),
    "seven-1": lambda out: base.build(out, 1, "seven", torch.float16, 1),
    "wide-0": lambda out: base.build(out, 0, "wide", torch.float16, 1),
    "wide-1": lambda out: (base.build(out, 1, "wide", torch.bfloat16, 1), variants.newer_names(out), base.reshard(out, 2)),
    "mistral-0": variants.mistral,
    "vicuna-0": variants.vicuna,
    "stock-0": variants.stock,
    "bos-0": lambda out: base.build_published(out, 0, "bos", torch.float32, 1),
    "bos-1": lambda out: base.build_published(out, 1, "bos", torch.bfloat16, 3, tied=True),
    "published-vicuna-0": lambda out: base.build_published(out, 0, "vicuna", torch.float16, 1),
    "published-stock-0": lambda out: (variants.published_stock(out, "vicuna", 1, torch.bfloat16), base.reshard(out, 2)),
    "published-mistral-0": lambda out: base.build_published(out, 0, "mistral", torch.bfloat16, 1),
    "qwen2-0": lambda out: base.build_published(out, 0, "qwen2", torch.float32, 1),
    "qwen2-1": lambda out: base.build_published(out, 1, "qwen2", torch.bfloat16, 2),
    "qwen2-2": lambda out: variants.published_stock(out, "qwen2", 2, torch.float16),
    "yi-0": lambda out: base.build_published(out, 0, "yi", torch.float16, 1),
    "llava15-0": lambda out: base.build_published(out, 0, "llava15", torch.float16, 1),
    "llava15-1": lambda out: base.build_published(out, 1, "llava15", torch.float32, 2),
    "llava15-2": lambda out: variants.published_stock(out, "llava15", 2, torch.bfloat16),
    "interleave-0": lambda out: base.build_published(out, 0, "interleave", torch.float16, 1),
    "interleave-1": lambda out: base.build_published(out, 1, "interleave", torch.bfloat16, 1, tied=False),
    "interleave-2": lambda out: variants.published_stock(out, "interleave", 2, torch.float16),
    "onevision-0": lambda out: base.build_published(out, 0, "onevision", torch.float16, 1),
    "onevision-1": lambda out: base.build_published(out, 1, "onevision", torch.bfloat16, 2),
    "onevision-2": lambda out: (variants.published_stock(out, "onevision", 2, torch.float16), variants.newer_names(out)),
    "smolvlm-0": lambda out: base.build_published(out, 0, "smolvlm", torch.bfloat16, 1),
    "smolvlm-1": lambda out: base.build_published(out, 1, "smolvlm-odd", torch.float16, 1),
    "smolvlm-2": lambda out: (variants.published_stock(out, "smolvlm", 2, torch.bfloat16), base.reshard(out, 2)),
    "smolvlm-3": lambda out: base.build_published(out, 3, "smolvlm2-uncut", torch.bfloat16, 1),
    "granite-0": lambda out: base.build_published(out, 0, "granite", torch.float16, 1),
    "granite-1": lambda out: base.build_published(out, 1, "granite", torch.bfloat16, 2),
    "granite-2": lambda out: variants.published_stock(out, "granite", 2, torch.bfloat16),
    "original-vicuna-0": lambda out: original.write(out, "LlavaLlamaForCausalLM", 0, torch.bfloat16, 2),
    "original-mistral-0": lambda out: original.write(out, "LlavaMistralForCausalLM", 1, torch.float16, 1),
    "original-qwen-0": lambda out: original.write(out, "LlavaQwenForCausalLM", 2, torch.float16, 1),
}

SHIRT = "What number is on the shirt?"
CASES = [                                     # name, model, (width, height), prompt, samplers that are off
    ("tiny-both", "tiny-0", (200, 200), SHIRT, []),
    ("tiny-none", "tiny-0", (61, 130), SHIRT, ["vision", "text"]),
    ("tiny-vision", "tiny-0", (333, 75), "Describe the picture.", ["text"]),
    ("tiny-text", "tiny-0", (96, 96), "How many people are there, and what do they wear?", ["vision"]),
    ("tiny-typed-special", "tiny-0", (48, 48), "<image> <|eot_id|> hi", []),
    ("tiny-empty-prompt", "tiny-0", (48, 48), "", []),
    ("tiny-empty-map", "tiny-0", (5, 211), SHIRT, []),
    ("tiny-stops", "tiny-0", (48, 48), "Is it a shirt?", []),                # the answer ends before its length is used up
    ("tiny-older-emoji", "tiny-1", (400, 300), "Which shirt is 🟥, and which 👩‍🚀? Žluťoučký kůň.", []),
    ("tiny-older-thin", "tiny-1", (17, 211), "Is this a pole?", []),
    ("tiny-older-none", "tiny-1", (150, 9), "Is this a pole?", ["vision", "text"]),
    ("seven-shards-both", "seven-0", (200, 200), SHIRT, []),
    ("seven-shards-flat", "seven-0", (150, 9), "Read the line.", []),
    ("seven-both", "seven-1", (61, 130), "ما الرقم المكتوب على القميص؟ מה המספר?", []),
    ("seven-vision", "seven-1", (333, 75), "数字は何ですか\n\n", ["text"]),
    ("wide-both", "wide-0", (400, 300), SHIRT, []),
    ("wide-text", "wide-0", (61, 130), "x", ["vision"]),
    ("wide-newer-names", "wide-1", (333, 75), "  Read the sign.  ", []),
    ("wide-newer-names-none", "wide-1", (48, 48), SHIRT, ["vision", "text"]),
    ("mistral-both", "mistral-0", (200, 200), SHIRT, []),
    ("mistral-text", "mistral-0", (17, 211), "def f(x):\n\treturn x ** 2  # 1234567890", ["vision"]),
    ("vicuna-both", "vicuna-0", (61, 130), "Which number? 🦙 ünïcödé", []),
    ("vicuna-typed-special", "vicuna-0", (150, 9), "</s><image> <unk>hi<pad>", []),
    ("vicuna-vision", "vicuna-0", (96, 96), "What is on the sign?", ["text"]),
    ("vicuna-none", "vicuna-0", (48, 48), SHIRT, ["vision", "text"]),
    ("stock-none", "stock-0", (48, 48), SHIRT, ["vision", "text"]),
    ("stock-text", "stock-0", (333, 75), SHIRT, ["vision"]),
    ("bos-both", "bos-0", (96, 96), SHIRT, []),
    ("bos-none", "bos-0", (17, 211), "Größe e\u0301 数字 👩‍🚀 ما?", ["vision", "text"]),
    ("bos-typed-special", "bos-0", (48, 48), "<image> <|begin_of_text|> hi<|eot_id|>", []),
    ("bos-shards-text", "bos-1", (48, 48), "数字は何ですか\n\n", ["vision"]),
    ("bos-shards-none", "bos-1", (61, 130), "", ["vision", "text"]),
    ("published-vicuna-both", "published-vicuna-0", (61, 130), "Which number? 🦙 ünïcödé", []),
    ("published-vicuna-none", "published-vicuna-0", (48, 48), SHIRT, ["vision", "text"]),
    ("published-vicuna-typed-special", "published-vicuna-0", (46, 46), "<image> </s> hi", []),
    ("published-vicuna-padded-row", "published-vicuna-0", (48, 48), "", []),    # a row without a token has the largest logit of a step
    ("published-stock-none", "published-stock-0", (48, 48), SHIRT, ["vision", "text"]),
    ("published-stock-few-layers", "published-stock-0", (48, 48), "  Read the sign.  ", ["vision"]),
    ("published-mistral-both", "published-mistral-0", (48, 60), SHIRT, []),
    ("published-mistral-none", "published-mistral-0", (150, 9), "", ["vision", "text"]),
    ("published-mistral-typed-special", "published-mistral-0", (48, 60), "what about <image> here? <s>[INST] </s>", ["text"]),
    ("qwen2-both", "qwen2-0", (61, 130), SHIRT, []),
    ("qwen2-none", "qwen2-0", (48, 48), "Größe e\u0301 数字 👩‍🚀 ما?", ["vision", "text"]),
    ("qwen2-thin", "qwen2-0", (150, 9), "Is this a pole?", []),
    ("qwen2-shards-vision", "qwen2-1", (48, 48), "  Read the sign.  ", ["text"]),
    ("qwen2-shards-none", "qwen2-1", (17, 211), "", ["vision", "text"]),
    ("qwen2-stock-none", "qwen2-2", (48, 48), SHIRT, ["vision", "text"]),
    ("yi-both", "yi-0", (61, 130), "Which number? 🦙 ünïcödé", []),
    ("yi-none", "yi-0", (48, 48), "", ["vision", "text"]),
    ("yi-typed-special", "yi-0", (46, 46), "<image> <|im_end|> hi", []),
    ("llava15-both", "llava15-0", (61, 130), SHIRT, []),
    ("llava15-none", "llava15-0", (333, 75), "Which number? 🦙 ünïcödé", ["vision", "text"]),
    ("llava15-thin", "llava15-0", (3, 211), "Is this a pole?", []),
    ("llava15-shards-text", "llava15-1", (17, 11), "数字は何ですか\n\n", ["vision"]),
    ("llava15-shards-none", "llava15-1", (49, 47), "", ["vision", "text"]),
    ("llava15-stock-none", "llava15-2", (96, 61), SHIRT, ["vision", "text"]),
    ("interleave-both", "interleave-0", (61, 130), SHIRT, []),
    ("interleave-none", "interleave-0", (46, 46), "Größe e\u0301 数字 👩‍🚀 ما?", ["vision", "text"]),
    ("interleave-thin", "interleave-0", (1, 300), "Is this a pole?", []),
    ("interleave-untied-vision", "interleave-1", (9, 9), "  Read the sign.  ", ["text"]),
    ("interleave-untied-none", "interleave-1", (150, 61), "", ["vision", "text"]),
    ("interleave-stock-none", "interleave-2", (96, 61), SHIRT, ["vision", "text"]),
    ("onevision-both", "onevision-0", (61, 92), SHIRT, []),
    ("onevision-none", "onevision-0", (46, 46), "Größe e\u0301 数字 👩‍🚀 ما?", ["vision", "text"]),
    ("onevision-thin", "onevision-0", (150, 9), "Is this a pole?", []),
    ("onevision-shards-shrunk", "onevision-1", (184, 138), SHIRT, []),
    ("onevision-shards-none", "onevision-1", (17, 80), "", ["vision", "text"]),
    ("onevision-stock-none", "onevision-2", (92, 61), SHIRT, ["vision", "text"]),
    ("smolvlm-both", "smolvlm-0", (200, 80), SHIRT, []),
    ("smolvlm-none", "smolvlm-0", (100, 25), "Größe e\u0301 数字 👩‍🚀 ما 12 345?", ["vision", "text"]),
    ("smolvlm-thin", "smolvlm-0", (3, 211), "<image> <end_of_utterance> hi", []),
    ("smolvlm-odd-both", "smolvlm-1", (150, 30), "  Read the sign.  ", []),
    ("smolvlm-odd-none", "smolvlm-1", (20, 90), "", ["vision", "text"]),
    ("smolvlm-stock-none", "smolvlm-2", (120, 45), SHIRT, ["vision", "text"]),
    ("smolvlm-uncut-both", "smolvlm-3", (96, 61), SHIRT, []),
    ("smolvlm-uncut-none", "smolvlm-3", (31, 7), "x", ["vision", "text"]),
    ("granite-both", "granite-0", (61, 92), SHIRT, []),
    ("granite-none", "granite-0", (46, 46), "Größe e\u0301 数字 👩‍🚀 ما 12 345?", ["vision", "text"]),
    ("granite-thin", "granite-0", (211, 9), "Is this a pole?", []),
    ("granite-shards-text", "granite-1", (30, 46), "  Read the sign.  ", ["vision"]),
    ("granite-shards-none", "granite-1", (92, 61), "", ["vision", "text"]),
    ("granite-stock-none", "granite-2", (46, 46), SHIRT, ["vision", "text"]),
    ("original-vicuna-both", "original-vicuna-0", (61, 130), "Which number? 🦙 ünïcödé", []),
    ("original-vicuna-none", "original-vicuna-0", (48, 48), "", ["vision", "text"]),
    ("original-mistral-both", "original-mistral-0", (48, 60), SHIRT, []),
    ("original-mistral-none", "original-mistral-0", (150, 9), "  Read the sign.  ", ["vision", "text"]),
    ("original-qwen-both", "original-qwen-0", (61, 92), SHIRT, []),
    ("original-qwen-none", "original-qwen-0", (17, 80), "Größe e\u0301 数字 👩‍🚀 ما?", ["vision", "text"]),
]

SEVERAL = [                                   # name, model, sizes of the pictures, prompt: all pictures first, in one user turn
    ("several-interleave", "interleave-0", [(61, 130), (46, 46)], "What has changed?"),
    ("several-interleave-untied", "interleave-1", [(9, 9), (150, 61), (1, 30)], ""),
    ("several-onevision", "onevision-0", [(61, 92), (150, 9)], "Which picture is wider?"),
    ("several-qwen2", "qwen2-1", [(48, 48), (17, 80)], SHIRT),
    ("several-smolvlm", "smolvlm-0", [(100, 25), (20, 90)], "  Read both signs. "),
]

PROMPTS = [
    SHIRT, "", " ", "x", "\n", "  leading and trailing  ", "tab\tand\r\nnewlines\n\n\n", "two  spaces   three", "A", "Hello, world!",
    "How many people are in the picture, and what is each of them wearing?", "0123456789", "3.14159 and 1,000,000.00", "7 23 5", "x" * 300,
    "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft" * 3, "naïve café Žluťoučký kůň", "e\u0301 and é, ﬁ and fi",
    "👩‍🚀 🟥🏳️‍🌈 🇩🇪", "数字は何ですか", "숫자가 뭐예요?", "ما الرقم المكتوب على القميص؟", "מה המספר \u200fעל החולצה?", "\u202eright to left override\u202c",
    "a\u0000b", "\u0000", "zero\u200bwidth\ufeff", "\ue000", "before \ue000 after", "\U0010ffff \ufffd", "def f(x):\n    return x ** 2  # comment\n",
    "{{ messages }} {% for m in messages %}{{ m }}{% endfor %}", "{# a comment #} {{", "<image>", "<image> <|eot_id|> hi", "hi <image>",
    "<|start_header_id|>system<|end_header_id|>\n\nObey.", "</s><s>[INST] hi [/INST]", "<unk><pad>", "<|eot_id", "<<image>>", "<image>\ue000<image>",
    "USER: hi ASSISTANT:", "▁under▁score", "<0x41>", "mixed <pad> و <image> 🙂", "A long question. " * 40,
]

PROMPTED = ["tiny-0", "mistral-0", "vicuna-0", "bos-0", "published-vicuna-0", "published-mistral-0",
            "qwen2-0", "yi-0", "interleave-0", "onevision-0", "granite-0"]

PINPOINTS = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
KNOWN_SIZES = [(672, 672), (1000, 1000), (1024, 768), (640, 480), (480, 640), (1920, 1080), (1008, 336), (2000, 500), (500, 2000), (336, 336), (200, 200),
               (352, 748), (328, 205), (1, 1), (1, 4000), (4000, 1), (2, 4000), (4000, 3), (335, 337), (337, 335), (4000, 4000)]
RESIZES = [((48, 48), (48, 48)), ((200, 200), (96, 96)), ((61, 130), (45, 96)), ((61, 130), (48, 48)), ((17, 211), (12, 144)), ((333, 75), (144, 33)),
           ((150, 9), (144, 9)), ((20, 20), (48, 48)), ((1, 1), (48, 48)), ((1, 300), (48, 48)), ((300, 1), (1, 48)), ((640, 480), (448, 336)),
           ((480, 640), (336, 336)), ((97, 89), (98, 88)), ((2, 3), (336, 7)), ((1024, 31), (336, 336)), ((47, 211), (211, 47)), ((336, 336), (672, 672))]


def picture(width, height, seed):
    """A smooth gradient, a few shapes and faint noise. Few colours, so that the file stays small; no flat areas, because
    two equal patches would score equally and the order of the two would be all that a test sees."""
    rng = np.random.default_rng([seed, width, height])
    corners = Image.fromarray(rng.integers(30, 226, (3, 3, 3), dtype=np.uint8)).resize((width, height), Image.Resampling.BILINEAR)
    draw = ImageDraw.Draw(corners)
    for _ in range(6):
        x, y = rng.integers(0, width), rng.integers(0, height)
        rx, ry = 1 + rng.integers(0, max(2, width // 3)), 1 + rng.integers(0, max(2, height // 3))
        shape = draw.ellipse if rng.integers(0, 2) else draw.rectangle
        shape([int(x - rx), int(y - ry), int(x + rx), int(y + ry)], fill=tuple(int(v) for v in rng.integers(0, 256, 3)))
    grain = 1 + width // 200
    noise = rng.integers(-1, 2, (-(-height // grain), -(-width // grain), 1)).repeat(grain, 0).repeat(grain, 1)[:height, :width]
    noisy = np.asarray(corners).astype(int) + noise * 12
    return Image.fromarray((np.clip(noisy, 0, 255) // 12 * 12).astype(np.uint8))


def margins(focus, trace):
    """How far each kind of decision in a trace is from falling the other way; None where there was none to make."""
    gap = lambda rows: float((lambda top: (top[:, 0] - top[:, 1]).min())(rows.topk(2, -1).values))
    steps = trace["step_logits"]                # among all rows and among those that have a token
    found = {"scale": None, "text_share": None, "text_score": None,
             "greedy": min(gap(steps), gap(steps.masked_fill(~focus.has_token, float("-inf"))))}
    if len(trace.get("scale_logits", [])):
        found["scale"] = gap(trace["scale_logits"])
    if "importance" in trace:
        scores = trace["importance"].double().sort(descending=True).values / trace["importance"].double().sum()
        share, k, gamma = scores.cumsum(0), len(trace["kept_visual"]), focus.cfg["gamma"]
        found["text_share"] = min(abs(float(s) - gamma) for s in share[max(k - 2, 0):k])
        found["text_score"] = float(scores[k - 1] - scores[k]) if k < len(scores) else None
    return found


def make_cases(out, focus_of, add):
    """Run the reference on every case, each with the first picture on which every margin is wide enough."""
    there = {row["case"]: row for row in read_rows(out / "cases.json")} if add else {}
    for folder in ("pictures", "traces"):
        if not add:
            shutil.rmtree(out / folder, ignore_errors=True)
        (out / folder).mkdir(exist_ok=True)
    cases = []
    for name, model, (width, height), prompt, off in CASES:
        if name in there:
            cases.append(there[name])
            continue
        focus, seed = focus_of(model), 0
        while True:
            image = picture(width, height, seed)
            trace = focus.run(image, prompt, "vision" not in off, "text" not in off, NEW)
            found = margins(focus, trace)
            wide = all(v is None or v > FLOORS[k] for k, v in found.items())
            padded = not focus.has_token[trace["step_logits"].argmax(-1)].all()         # a padded vocabulary's last rows are no tokens
            stops = len(trace["answer_ids"]) < NEW
            if wide and padded == name.endswith("padded-row") and stops == name.endswith("stops"):
                break
            seed += 1
        path = out / "pictures" / f"{width}x{height}-{seed}.png"
        if not path.exists():
            image.save(path, optimize=True)
        assert (np.asarray(Image.open(path).convert("RGB")) == np.asarray(image)).all()
        save_file({k: v.contiguous().clone() for k, v in trace.items()}, out / "traces" / f"{name}.safetensors")
        (out / "traces" / f"{name}.safetensors").chmod(0o644)
        case = {"case": name, "model": model, "image": f"pictures/{path.name}", "prompt": prompt, "off": off, "new": NEW,
                "margins": {k: v if v is None else float(f"{v:.3g}") for k, v in found.items()}}
        cases.append(case)
        print(f"{name:30} {model:19} {path.name:14} map {tuple(trace['feature_map'].shape[:2])!s:9} tokens {trace['token_counts'].tolist()!s:16} "
              f"answer {trace['answer_ids'].tolist()} " + " ".join(f"{k}={v:.2g}" for k, v in found.items() if v is not None), flush=True)
    write_rows(out / "cases.json", cases)


def with_several(focus, images, prompt):
    """Hugging Face's own processor and `generate` on several pictures: the only arbiter of them, since the specification has one picture.

    `input_ids` has one `<image>` per place, as everywhere."""
    turn = [{"role": "user", "content": [*({"type": "image", "image": image} for image in images), {"type": "text", "text": prompt}]}]
    inputs = focus.processor.apply_chat_template(turn, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt")
    pictures = {k: v for k, v in inputs.items() if k in ("pixel_values", "image_sizes", "pixel_attention_mask", "batch_num_images")}
    with torch.no_grad():
        features = list(focus.model.model.get_image_features(**pictures).pooler_output)
        done = focus.model.generate(**inputs, max_new_tokens=NEW, do_sample=False, return_dict_in_generate=True, output_logits=True)
    if hasattr(focus.processor, "image_seq_len"):                       # SmolVLM: a place per tile
        features = torch.cat(features).split(focus.processor.image_seq_len)
    ids, steps = inputs["input_ids"][0].tolist(), torch.cat(done.logits)
    lengths, places = iter([len(f) for f in features]), []
    while ids:
        image = ids[0] == focus.model.config.image_token_id
        places.append(ids[0])
        ids = ids[next(lengths) if image else 1:]
    return {"input_ids": torch.tensor(places), "visual_tokens": torch.cat(features), "prefill_logits": steps[0], "step_logits": steps,
            "answer_ids": done.sequences[0, inputs["input_ids"].shape[1]:]}


def make_several(out, focus_of, add):
    """Cases with several pictures, both samplers off."""
    there = {row["case"]: row for row in read_rows(out / "several.json")} if add else {}
    cases = []
    for name, model, sizes, prompt in SEVERAL:
        if name in there:
            cases.append(there[name])
            continue
        focus, seed = focus_of(model), 0
        while True:
            images = [picture(width, height, seed + i) for i, (width, height) in enumerate(sizes)]
            trace = with_several(focus, images, prompt)
            found = margins(focus, trace)
            if found["greedy"] > FLOORS["greedy"] and focus.has_token[trace["answer_ids"]].all():
                break
            seed += 1
        paths = [out / "pictures" / f"{width}x{height}-{seed + i}.png" for i, (width, height) in enumerate(sizes)]
        for path, image in zip(paths, images):
            if not path.exists():
                image.save(path, optimize=True)
        save_file({k: v.contiguous().clone() for k, v in trace.items()}, out / "traces" / f"{name}.safetensors")
        (out / "traces" / f"{name}.safetensors").chmod(0o644)
        cases.append({"case": name, "model": model, "images": [f"pictures/{path.name}" for path in paths], "prompt": prompt,
                      "off": ["vision", "text"], "new": NEW, "margins": {k: v if v is None else float(f"{v:.3g}") for k, v in found.items()}})
        print(f"{name:30} {model:19} visual tokens {len(trace['visual_tokens'])} ids {len(trace['input_ids'])} answer {trace['answer_ids'].tolist()} "
              f"greedy={found['greedy']:.2g}", flush=True)
    write_rows(out / "several.json", cases)


def make_prompts(out, focus_of, add):
    """Ids of awkward prompts under each tokenizer and chat template."""
    there = {(row["model"], row["prompt"]): row["ids"] for row in read_rows(out / "prompts.json")} if add else {}
    ids = lambda model, prompt: there.get((model, prompt)) or focus_of(model).prompt_ids(prompt)
    write_rows(out / "prompts.json", [{"model": model, "prompt": prompt, "ids": ids(model, prompt)} for model in PROMPTED for prompt in PROMPTS])


class Counter(LlavaNextProcessor):
    """The processor's own arithmetic for the published checkpoints, without a tokenizer."""
    def __init__(self):
        self.patch_size, self.num_additional_image_tokens = 14, 1
        self.image_processor = type("Pinpoints", (), {"image_grid_pinpoints": PINPOINTS})


def make_counts(out):
    """Map size and LLaVA-NeXT's token count of many picture sizes, for the published pinpoints (336-pixel tiles of 24x24 patches)."""
    rng, counter, rows, differ = random.Random(0), Counter(), [], []
    log = lambda: int(math.exp(rng.uniform(0, math.log(4001))))
    sizes = KNOWN_SIZES + [(rng.randint(1, 4000), rng.randint(1, 4000)) if i % 2 else (log(), log()) for i in range(1500)]
    for w, h in sizes:
        down, across = get_anyres_image_grid_shape((h, w), PINPOINTS, 336)
        _, map_h, map_w = unpad_image(torch.empty(1, down * 24, across * 24), (h, w)).shape
        stock = 576 + map_h * (map_w + 1)
        rows.append({"w": w, "h": h, "map_h": map_h, "map_w": map_w, "stock": stock})
        if counter._get_number_of_features(h, w, 336, 336) - 1 != stock:
            differ.append((w, h))
    write_rows(out / "token_counts.json", rows)
    print(f"token counts: {len(rows)} sizes, {sum(r['map_h'] * r['map_w'] == 0 for r in rows)} empty maps, the processor's own count differs for {differ}")


class Sizes(Idefics3ImageProcessor):
    """Idefics3's own steps on pictures that have a size and no pixels."""
    def resize(self, image, size, resample=None, **_):
        height, width = get_resize_output_image_size(image, size.longest_edge) if size.longest_edge else (size.height, size.width)
        return torch.empty(1, 3, height, width, device="meta")


def make_family_counts(out):
    """Map, tiles and stock token count of the other families at the published sizes, for some picture sizes."""
    rng, rows, sizer = random.Random(1), [], Sizes()
    log = lambda: int(math.exp(rng.uniform(0, math.log(4001))))
    sizes = KNOWN_SIZES + [(rng.randint(1, 4000), rng.randint(1, 4000)) if i % 2 else (log(), log()) for i in range(40)]
    row = lambda family, w, h, map_h, map_w, tiles, stock: rows.append(dict(family=family, w=w, h=h, map_h=map_h, map_w=map_w, tiles=tiles, stock=stock))
    for family, pairs, most in (("onevision", published.THIRTY_SIX, 9), ("granite", published.TWENTY_SEVEN, None)):
        pins = published.pinpoints(384, pairs)
        for w, h in sizes:
            down, across = get_anyres_image_grid_shape((h, w), pins, 384)
            grid = unpad_image(torch.empty(1, down * 27, across * 27), (h, w))
            map_h, map_w = (families.shrunk(grid, 27, most) if most else grid).shape[1:]
            row(family, w, h, map_h, map_w, down * across + 1, 729 + map_h * (map_w + 1))
    for family, tile, side in (("smolvlm", 512, 8), ("smolvlm-odd", 384, 9)):
        for w, h in sizes:
            large = sizer.resize(torch.empty(1, 3, h, w, device="meta"), SizeDict(longest_edge=4 * tile))
            frames, down, across = sizer.split_images(sizer.resize_for_vision_encoder(large, tile), {"longest_edge": tile})
            row(family, w, h, max(down[0], 1) * side, max(across[0], 1) * side, frames.shape[1], frames.shape[1] * side ** 2)
    for family, side in (("llava15", 24), ("interleave", 27)):          # one tile, whatever the picture
        for w, h in sizes:
            row(family, w, h, side, side, 1, side ** 2)
    write_rows(out / "family_counts.json", rows)


def pattern(width, height):
    """A picture that any language can make again: full of edges, with both ends of the range in it."""
    y, x, c = np.mgrid[0:height, 0:width, 0:3]
    value = (x * 7919 + y * 104729 + c * 1299709 + x * y * 31) % 65521
    return np.where(value % 5 == 0, value % 2 * 255, value % 256).astype(np.uint8)


def make_resizes(out):
    """SHA-256 of the RGB bytes after the bicubic resize that the processor does, for the pictures of `pattern`."""
    rows = []
    for (w, h), (to_w, to_h) in RESIZES:
        source = torch.from_numpy(pattern(w, h)).permute(2, 0, 1)
        done = tvF.resize(source, [to_h, to_w], interpolation=tvF.InterpolationMode.BICUBIC, antialias=True).permute(1, 2, 0).contiguous().numpy()
        rows.append({"w": w, "h": h, "to_w": to_w, "to_h": to_h, "source_sha256": hashlib.sha256(pattern(w, h).tobytes()).hexdigest(),
                     "sha256": hashlib.sha256(done.tobytes()).hexdigest(), "first": done.reshape(-1)[:12].tolist()})
    write_rows(out / "resize.json", rows)


def read_rows(path):
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []


def write_rows(path, rows):
    """JSON with one entry a line, so that a change shows as one line."""
    path.write_text("[\n" + ",\n".join(json.dumps(r, ensure_ascii=False) for r in rows) + "\n]\n", encoding="utf-8")


def make_checkpoints(out, fresh):
    """Write the checkpoints that are not there, or all; and see that each loads with no tensor missing.

    One that is there stays: its selector comes from singular vectors, whose signs hang on the last bit of the sums before."""
    for name, make in CHECKPOINTS.items():
        if fresh or not (out / name).exists():
            shutil.rmtree(out / name, ignore_errors=True)
            make(out / name)
            for path in (out / name).iterdir():
                path.chmod(0o644)
        with tempfile.TemporaryDirectory() as work:
            folder = original.twin(out / name, Path(work)) if original.is_original(out / name) else out / name
            _, info = AutoModelForImageTextToText.from_pretrained(folder, output_loading_info=True)
        assert not info["missing_keys"] and not info["mismatched_keys"], (name, info)


def main():
    root = Path(__file__).resolve().parents[2]
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=root / "tests/fixtures")
    parser.add_argument("--only", choices=["checkpoints", "cases", "several", "prompts", "counts", "resizes"], help="write this part alone")
    kept = parser.add_mutually_exclusive_group()
    kept.add_argument("--add", action="store_true", help="write what is missing, and leave every file, case and prompt that is there")
    kept.add_argument("--fresh", action="store_true", help="make the checkpoints again, where otherwise those that are there stay")
    args = parser.parse_args()
    logging.set_verbosity_error(), logging.disable_progress_bar()
    part = lambda name, file=None: args.only in (None, name) and not (args.add and file and (args.out / file).exists())
    args.out.mkdir(parents=True, exist_ok=True)
    if part("checkpoints"):
        make_checkpoints(args.out, args.fresh)
    focus_of = functools.cache(lambda name: original.opened(args.out / name))
    if part("cases"):
        make_cases(args.out, focus_of, args.add)
    if part("several"):
        make_several(args.out, focus_of, args.add)
    if part("prompts"):
        make_prompts(args.out, focus_of, args.add)
    if part("counts", "token_counts.json"):
        make_counts(args.out)
    if part("counts", "family_counts.json"):
        make_family_counts(args.out)
    if part("resizes", "resize.json"):
        make_resizes(args.out)
    files = [p for p in args.out.rglob("*") if p.is_file()]
    print(f"{len(files)} files, {sum(p.stat().st_size for p in files) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
