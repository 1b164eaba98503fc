"""Checkpoints that `make_checkpoint.py` has no preset for: other text models, another tokenizer, other file layouts, no samplers."""
import json
import re

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import (CLIPVisionConfig, LlamaConfig, LlavaNextConfig, LlavaNextForConditionalGeneration,
                          LlavaNextImageProcessor, LlavaNextProcessor, MistralConfig, PreTrainedTokenizerFast)

import make_checkpoint as base
import published

SIZE, PATCH = 48, 6
PINPOINTS = [[48, 96], [96, 48], [96, 96], [144, 48], [48, 144]]
# The two templates have the constructs of the published Mistral and Vicuna checkpoints: filters, comments, string methods, an exception.
MISTRAL_CHAT = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'system' %}{{ '<<SYS>>\\n' + message['content'][0]['text'] + '\\n<</SYS>>\\n\\n' }}"
    "{% elif message['role'] == 'user' %}{{ '[INST] ' }}{# images first #}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\\n' }}{% endfor %}{# then the text #}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] }}{% endfor %}{{ ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' ' + message['content'][0]['text'] + eos_token }}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}")
VICUNA_CHAT = (
    "{% for message in messages %}{% if message['role'] == 'system' %}{{ message['content'][0]['text'] }}"
    "{% else %}{{ message['role'].upper() + ': ' }}{% endif %}{# images first #}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\\n' }}{% endfor %}{# then the text #}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] + ' ' }}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}")
TEXT = """What number is on the shirt? How many people stand on the grass, and which of them looks at the camera?
Describe the picture in one short sentence. Is the sky blue or grey? Read the sign beside the road and say what it asks for.
The user asks a question about the image; the assistant answers it from what can be seen. USER: ASSISTANT:
One, two, three, four, five. The red shirt has the number seven, the blue shirt has the number twenty-three.
def count(people): return sum(person.shirt is not None for person in people)  # 0 1 2 3 4 5 6 7 8 9
"""


def vicuna_tokenizer():
    """Llama's kind of BPE: the space is U+2581 and put before the text, what the vocabulary lacks falls back to bytes."""
    learn = Tokenizer(models.BPE(unk_token="<unk>"))
    learn.pre_tokenizer = pre_tokenizers.Metaspace()
    first = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    learn.train_from_iterator([TEXT] * 2, trainers.BpeTrainer(vocab_size=480, special_tokens=first, show_progress=False))
    learnt = json.loads(learn.to_str())["model"]
    tok = Tokenizer(models.BPE(learnt["vocab"], [tuple(m) for m in learnt["merges"]], unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tok.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tok.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    tok.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in ("<unk>", "<s>", "</s>", "<image>", "<pad>")])
    fast = PreTrainedTokenizerFast(tokenizer_object=tok, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<pad>", padding_side="left",
                                   extra_special_tokens={"image_token": "<image>"})
    fast.chat_template = VICUNA_CHAT
    return fast


def write(out, seed, dtype, tok, text_config, focus, tied=False, selector=True):
    """A random checkpoint of any text model, by the same rules as `make_checkpoint.build`."""
    torch.manual_seed(seed)
    out.mkdir(parents=True, exist_ok=True)
    config = LlavaNextConfig(
        vision_config=CLIPVisionConfig(hidden_size=48, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4, image_size=SIZE,
                                       patch_size=PATCH, projection_dim=32),
        text_config=text_config, image_token_id=tok.convert_tokens_to_ids("<image>"), image_grid_pinpoints=PINPOINTS, vision_feature_layer=-2,
        vision_feature_select_strategy="default", tie_word_embeddings=tied)
    model = LlavaNextForConditionalGeneration(config)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.ndim > 1:
                p.normal_(0, 1.6 / p.shape[-1] ** 0.5 if "embed" not in name else 0.7)
            elif "norm" in name and name.endswith("weight"):
                p.uniform_(0.7, 1.3)
            else:
                p.normal_(0, 0.1)
    model.generation_config.eos_token_id = tok.eos_token_id
    model.to(dtype).save_pretrained(out)
    LlavaNextProcessor(
        LlavaNextImageProcessor(size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE}, image_grid_pinpoints=PINPOINTS),
        tok, patch_size=PATCH, vision_feature_select_strategy="default", image_token="<image>", num_additional_image_tokens=1,
        chat_template=tok.chat_template).save_pretrained(out)
    if focus is not None:
        edit(out / "config.json", lambda raw: raw | {"focus": focus})
    if selector:
        base.finish(out, len((focus or {}).get("scales", [0, 0, 0])), (SIZE // PATCH) ** 2, dtype)
        base.spread_choices(out, seed)
    else:
        rename(out, base.hub_name)


def edit(path, change):
    """Rewrite a JSON file through a function of its content."""
    path.write_text(json.dumps(change(json.loads(path.read_text())), indent=2) + "\n")


def rename(out, name_of):
    """Give every tensor another name, in the shards and in their index."""
    for shard in sorted(out.glob("*.safetensors")):
        with safe_open(shard, "pt") as f:
            tensors = {name_of(k): f.get_tensor(k) for k in f.keys()}
        save_file(tensors, shard, metadata={"format": "pt"})
    index = out / "model.safetensors.index.json"
    if index.exists():
        edit(index, lambda raw: raw | {"weight_map": {name_of(k): v for k, v in raw["weight_map"].items()}})


def mistral(out, seed=0, dtype=torch.float16):
    """Mistral: grouped heads, a head width that is not hidden / heads, tied embeddings, no sliding window."""
    tok = base.tokenizer()
    tok.chat_template = MISTRAL_CHAT
    text = MistralConfig(hidden_size=64, intermediate_size=128, num_hidden_layers=6, num_attention_heads=4, num_key_value_heads=2, head_dim=24,
                         vocab_size=len(tok), rms_norm_eps=1e-5, rope_theta=1000000.0, sliding_window=None, max_position_embeddings=8192,
                         bos_token_id=tok.bos_token_id, eos_token_id=tok.eos_token_id, pad_token_id=tok.pad_token_id, tie_word_embeddings=True)
    write(out, seed, dtype, tok, text, {"window": 4, "scales": [[4, 4], [2, 2], [1, 1]], "text_layer": 2, "gamma": 0.8}, tied=True)


def vicuna(out, seed=0, dtype=torch.float16):
    """Vicuna: a query head per key head, biases in the attention, Llama's tokenizer, a padded vocabulary,
    and a config.json in which everything that equals its class default is left out, as the published ones have it."""
    tok = vicuna_tokenizer()
    text = LlamaConfig(hidden_size=64, intermediate_size=128, num_hidden_layers=5, num_attention_heads=4, vocab_size=len(tok) + 8,
                       attention_bias=True, pad_token_id=tok.pad_token_id)
    write(out, seed, dtype, tok, text, {"text_layer": 1, "score_rope": True})
    edit(out / "config.json", lambda raw: {
        "architectures": raw["architectures"], "model_type": raw["model_type"],
        "image_grid_pinpoints": raw["image_grid_pinpoints"], "image_token_index": raw["image_token_index"],
        "text_config": {key: raw["text_config"][key] for key in (
            "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size", "attention_bias")},
        "vision_config": {key: raw["vision_config"][key] for key in (
            "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "image_size", "patch_size")},
        "focus": raw["focus"]})


def stock(out, seed=0, dtype=torch.float16):
    """A checkpoint that knows nothing of the samplers: no selector, no `focus`. Ten layers, so that the default `text_layer` exists."""
    tok = base.tokenizer()
    text = LlamaConfig(hidden_size=64, intermediate_size=128, num_hidden_layers=10, num_attention_heads=8, num_key_value_heads=2,
                       vocab_size=len(tok), rms_norm_eps=1e-5, rope_theta=500000.0, max_position_embeddings=8192,
                       bos_token_id=tok.bos_token_id, eos_token_id=tok.eos_token_id, pad_token_id=tok.pad_token_id)
    write(out, seed, dtype, tok, text, None, selector=False)


def published_stock(out, preset, seed, dtype):
    """The files of a published checkpoint and nothing of ours: no selector, no `focus`. It has fewer layers than the default
    `text_layer`, so that the text-guided sampler, where it is on, drops nothing."""
    published.write(out, preset, seed, dtype)
    edit(out / "config.json", lambda raw: {key: value for key, value in raw.items() if key != "focus"})
    rename(out, base.hub_name)


def older_side_files(out):
    """The side files as they were before transformers 5: the picture's settings in preprocessor_config.json,
    the chat template inside tokenizer_config.json, `rope_theta` and `torch_dtype` in config.json.

    The processor does not look for a template in tokenizer_config.json, so chat_template.json holds it as well,
    as it does in the published checkpoints of that time."""
    processor = json.loads((out / "processor_config.json").read_text())
    image = processor.pop("image_processor")
    (out / "preprocessor_config.json").write_text(json.dumps(image | {"processor_class": processor["processor_class"]}, indent=2) + "\n")
    (out / "processor_config.json").write_text(json.dumps(processor, indent=2) + "\n")
    template = out / "chat_template.jinja"
    edit(out / "tokenizer_config.json", lambda raw: raw | {"chat_template": template.read_text()})
    (out / "chat_template.json").write_text(json.dumps({"chat_template": template.read_text()}, indent=2) + "\n")
    template.unlink()

    def older(raw):
        text = raw["text_config"]
        text |= {"rope_theta": text.pop("rope_parameters")["rope_theta"], "rope_scaling": None}
        raw["torch_dtype"] = raw.pop("dtype")
        return raw
    edit(out / "config.json", older)


def newer_names(out):
    """The tensor names that newer transformers use in memory: `model.` before everything but `lm_head`, no `vision_model.` level."""
    def name(key):
        key = re.sub(r"^vision_tower\.vision_model\.", "vision_tower.", key)
        key = re.sub(r"^language_model\.lm_head\.", "lm_head.", re.sub(r"^language_model\.model\.", "language_model.", key))
        return key if key.startswith(("lm_head.", "scale_selector.")) else f"model.{key}"
    rename(out, name)
