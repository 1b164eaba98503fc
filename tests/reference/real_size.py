#!/usr/bin/env python3
"""Compare Fovea with Hugging Face's class on a random checkpoint of the size of a published one.

    real_size.py NAME DIR --fovea PROGRAM --picture FILE      # NAME: smolvlm-256m, interleave-0.5b or onevision-0.5b

Writes the checkpoint to DIR (0.5 to 1.8 GB) where it is not there, runs the picture and a question through both in f32, and
prints the difference of the first logits. Only sizes and forms are those of the published checkpoint: the weights and the
vocabulary's pieces are not. It needs up to 8 GB of memory, and minutes on two cores.
"""
import argparse
import subprocess
import tempfile
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

import published

SIGLIP = dict(hidden_size=1152, intermediate_size=4304, num_hidden_layers=26, num_attention_heads=16, image_size=384, patch_size=14)
QWEN2 = dict(hidden_size=896, intermediate_size=4864, num_hidden_layers=24, num_attention_heads=14, num_key_value_heads=2, vocab_size=152000)
SMOLVLM_SIDES = dict(max_image_size={"longest_edge": 512}, size={"longest_edge": 2048})
SMOLVLM_TOWER = dict(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, image_size=512, patch_size=16)
SMOLLM2 = dict(hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3, head_dim=64, vocab_size=49280)
PINS = published.pinpoints(384, published.THIRTY_SIX)
SQUARE = {"size": {"height": 384, "width": 384}}
# preset, text_config, vision_config, the rest of config.json, preprocessor_config.json, processor_config.json
SIZES = {
    "smolvlm-256m": ("smolvlm", SMOLLM2, SMOLVLM_TOWER | SMOLVLM_SIDES, {}, SMOLVLM_SIDES, {"image_seq_len": 64}),
    "interleave-0.5b": ("interleave", QWEN2, SIGLIP, {}, SQUARE, {"patch_size": 14}),
    "onevision-0.5b": ("onevision", QWEN2, SIGLIP, {"image_grid_pinpoints": PINS}, SQUARE | {"image_grid_pinpoints": PINS}, {"num_image_tokens": 729}),
}
QUESTION = "What word is on the blue sign?"


def write(out, name):
    preset_name, text, vision, rest, image, processor = SIZES[name]
    preset = published.presets()[preset_name]
    out.mkdir(parents=True, exist_ok=True)
    tok = preset.tokenizer()
    published.write_tokenizer(out, preset, tok)
    config = published.ids(tok, preset.config) | rest
    config["text_config"], config["vision_config"] = config["text_config"] | text, config["vision_config"] | vision
    files = {"config.json": {"architectures": [preset.architecture], **config}, "generation_config.json": published.ids(tok, preset.generation),
             "preprocessor_config.json": preset.image | image, "processor_config.json": preset.processor | processor,
             "chat_template.json": {"chat_template": preset.template}}
    for file, content in files.items():
        published.write_json(out / file, content)
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(AutoConfig.from_pretrained(out))
    with torch.no_grad():
        for key, p in model.named_parameters():
            if p.ndim > 1:
                p.normal_(0, 0.7 if "embed" in key else p[0].numel() ** -0.5)
            elif "norm" in key and key.endswith("weight"):
                p.uniform_(0.7, 1.3)
            else:
                p.normal_(0, 0.1)
    model.to(torch.bfloat16).save_pretrained(out)
    for file in ("config.json", "generation_config.json"):          # save_pretrained rewrites them
        published.write_json(out / file, files[file])


def expected(out, picture):
    model = AutoModelForImageTextToText.from_pretrained(out, dtype=torch.float32).eval()
    content = [{"type": "image", "image": Image.open(picture).convert("RGB")}, {"type": "text", "text": QUESTION}]
    inputs = AutoProcessor.from_pretrained(out).apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt")
    with torch.no_grad():
        return model(**inputs, logits_to_keep=1).logits[0, -1], inputs["input_ids"].shape[1]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("name", choices=SIZES), parser.add_argument("dir", type=Path)
    parser.add_argument("--fovea", default="fovea"), parser.add_argument("--picture", required=True), parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    if not (args.dir / "model.safetensors").exists():
        write(args.dir, args.name)
    theirs, tokens = expected(args.dir, args.picture)
    with tempfile.TemporaryDirectory() as folder:
        trace = f"{folder}/trace.safetensors"
        subprocess.run([args.fovea, "trace", args.picture, QUESTION, "--model", args.dir, "--compress", "none", "--max-new-tokens", "1",
                        "--device", args.device, "--out", trace], check=True)
        ours = load_file(trace)["prefill_logits"]
    nmse = float((ours - theirs).double().square().sum() / theirs.double().square().sum())
    print(f"{args.name}: {tokens} tokens, {len(theirs)} logits, largest {float(theirs.abs().max()):.3g}; NMSE {nmse:.1e}, "
          f"largest difference {float((ours - theirs).abs().max()):.1e}; most likely {int(theirs.argmax())}, {int(ours.argmax())}")


if __name__ == "__main__":
    main()
