"""Small random checkpoints in the layout of the original LLaVA code (haotian-liu/LLaVA, LLaVA-VL/LLaVA-NeXT), and their specification.

Such a checkpoint has a flat config.json with `mm_*` keys, LLaVA's tensor names, a tokenizer without `<image>`, and neither chat
template nor preprocessor_config.json. Here config.json has a key of our own, `vision_config`: the published files only name the tower
(`mm_vision_tower`), and a small tower is none of those. The traces are those of the same weights in Hugging Face's layout (`twin`);
the prompt is LLaVA's (`Original.prompt_ids`).
"""
import json
import shutil
import tempfile
from pathlib import Path

import make_checkpoint as base
import published
from focus_reference import Focus
from safetensors import safe_open
from safetensors.torch import save_file

SYSTEM = ("A chat between a curious user and an artificial intelligence assistant. "
          "The assistant gives helpful, detailed, and polite answers to the user's questions.")
KINDS = {                                       # architecture: preset of published.py, tokenizer without a picture, prompt of llava/conversation.py, config
    "LlavaLlamaForCausalLM": dict(                                      # liuhaotian/llava-v1.6-vicuna-7b, vicuna_v1
        preset="vicuna", tokenizer=lambda: published.sentencepiece(()), prompt=(f"{SYSTEM} USER: ", " ASSISTANT:"),
        generation=dict(_from_model_config=True, bos_token_id=1, eos_token_id=2, pad_token_id=0),
        config=dict(_name_or_path="liuhaotian/llava-v1.6-vicuna-7b", model_type="llava", attention_bias=False, pretraining_tp=1, pad_token_id=0)),
    "LlavaMistralForCausalLM": dict(                                    # liuhaotian/llava-v1.6-mistral-7b, mistral_instruct
        preset="mistral", tokenizer=lambda: published.sentencepiece(()), prompt=("[INST] ", " [/INST]"),
        generation=dict(_from_model_config=True, bos_token_id=1, eos_token_id=2),
        config=dict(_name_or_path="mistralai/Mistral-7B-Instruct-v0.2", model_type="llava_mistral")),
    "LlavaQwenForCausalLM": dict(                                       # lmms-lab/llava-onevision-qwen2-0.5b-ov, qwen_1_5
        preset="onevision", tokenizer=lambda: published.byte_level("qwen", published.QWEN_ADDED, nfc=True),
        prompt=("<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"),
        generation=dict(bos_token_id="<|endoftext|>", eos_token_id=["<|im_end|>", "<|endoftext|>"], pad_token_id="<|endoftext|>"),
        config=dict(_name_or_path="lmms-lab/llava-onevision-qwen2-0.5b-ov", model_type="llava", mm_newline_position="one_token",
                    mm_spatial_pool_mode="bilinear", mm_tunable_parts="mm_vision_tower,mm_mlp_adapter,mm_language_model", pos_skipping_range=4096,
                    use_pos_skipping=False, vision_tower_pretrained=None, image_aspect_ratio="anyres_max_9", image_crop_resolution=None,
                    image_split_resolution=None, mm_vision_tower="google/siglip-so400m-patch14-384")),
}
SHARED = dict(
    attention_dropout=0.0, hidden_act="silu", image_aspect_ratio="anyres", image_crop_resolution=224, image_split_resolution=224, initializer_range=0.02,
    mm_patch_merge_type="spatial_unpad", mm_projector_lr=None, mm_projector_type="mlp2x_gelu", mm_resampler_type=None, mm_use_im_patch_token=False,
    mm_use_im_start_end=False, mm_vision_select_feature="patch", mm_vision_select_layer=-2, mm_vision_tower="openai/clip-vit-large-patch14-336",
    mm_vision_tower_lr=2e-06, rope_scaling=None, rope_theta=10000.0, tie_word_embeddings=False, tokenizer_padding_side="right", torch_dtype="bfloat16",
    tune_mm_mlp_adapter=False, unfreeze_mm_vision_tower=True, use_cache=True, use_mm_proj=True)
NAMES = [("language_model.model.", "model."), ("language_model.lm_head.", "lm_head."), ("vision_tower.", "model.vision_tower.vision_tower."),
         ("multi_modal_projector.linear_1.", "model.mm_projector.0."), ("multi_modal_projector.linear_2.", "model.mm_projector.2."),
         ("image_newline", "model.image_newline"), ("scale_selector.", "scale_selector.")]


def tensors(folder):
    found = {}
    for shard in sorted(folder.glob("*.safetensors")):
        with safe_open(shard, "pt") as f:
            found |= {k: f.get_tensor(k) for k in f.keys()}
    return found


def renamed(name, pairs):
    old, new = next(pair for pair in pairs if name.startswith(pair[0]))
    return new + name[len(old):]


def write(out, architecture, seed, dtype, shards):
    """The preset in Hugging Face's layout first; then other names, a flat config.json, and no rows for the picture."""
    kind = KINDS[architecture]
    preset, tok = published.presets()[kind["preset"]], kind["tokenizer"]()
    with tempfile.TemporaryDirectory() as work:
        base.build_published(Path(work), seed, kind["preset"], dtype, 1)
        weights, hub = tensors(Path(work)), json.loads((Path(work) / "config.json").read_text())
    rows = len(tok.get_vocab())
    if preset.tied:
        rows = (rows + 16) // 8 * 8             # Qwen's vocabulary is padded
    out.mkdir(parents=True)
    save_file({renamed(k, NAMES): v[:rows].clone() if k.endswith(("embed_tokens.weight", "lm_head.weight")) else v for k, v in weights.items()},
              out / "model.safetensors", metadata={"format": "pt"})
    if shards > 1:
        base.reshard(out, shards)
    text = {k: v for k, v in hub["text_config"].items() if k != "model_type"}
    heads = {"num_key_value_heads": text["num_attention_heads"]}                    # named also where it equals the default
    published.write_json(out / "config.json", {
        "architectures": [architecture], **SHARED, **heads, **text, "torch_dtype": "bfloat16", **kind["config"], "vocab_size": rows,
        **({"image_token_index": len(tok.get_vocab())} if preset.tied else {}),    # as published; LLaVA's code does not read it
        "tokenizer_model_max_length": text["max_position_embeddings"], "mm_hidden_size": hub["vision_config"]["hidden_size"],
        "image_grid_pinpoints": hub["image_grid_pinpoints"],
        **{k: v for k, v in published.ids(tok, preset.generation).items() if k in ("bos_token_id", "eos_token_id")},
        "vision_config": hub["vision_config"], "focus": hub["focus"]})
    number = lambda v: [tok.token_to_id(t) for t in v] if isinstance(v, list) else v
    published.write_json(out / "generation_config.json", {k: number(v) for k, v in published.ids(tok, kind["generation"]).items()})
    if not preset.tied:
        preset.names = {**preset.names, "pad_token": "<unk>"}
    published.write_tokenizer(out, preset, tok)
    (out / "added_tokens.json").unlink()
    config = json.loads((out / "tokenizer_config.json").read_text())
    published.write_json(out / "tokenizer_config.json", {k: v for k, v in config.items() if k not in ("extra_special_tokens", "image_token", "processor_class")}
                         | {"padding_side": "right"})


def is_original(folder):
    return "mm_projector_type" in json.loads((folder / "config.json").read_text())


def twin(folder, out):
    """The same checkpoint in Hugging Face's layout. The picture's id is one beyond the embedding: it stands for LLaVA's -200.

    LLaVA's code for SigLIP ignores mm_vision_select_layer and mm_vision_select_feature: the published towers have lost their last layer, and
    what the layer before it returns is used, all tokens. So it is layer -1 of what is in the file, as the preset says."""
    raw = json.loads((folder / "config.json").read_text())
    preset = published.presets()[KINDS[raw["architectures"][0]]["preset"]]
    text = {k: raw[k] for k in (*preset.config["text_config"], "vocab_size", "tie_word_embeddings") if k in raw}
    text["model_type"] = preset.config["text_config"]["model_type"]
    out.mkdir(parents=True, exist_ok=True)
    published.write_json(out / "config.json", {
        "architectures": [preset.architecture], **preset.config, "text_config": text, "vision_config": raw["vision_config"],
        "image_grid_pinpoints": raw["image_grid_pinpoints"], "image_token_index": raw["vocab_size"],
        **({"video_token_index": raw["vocab_size"] + 1} if preset.tied else {}), "focus": raw.get("focus", {})})
    published.write_json(out / "preprocessor_config.json", preset.image)
    published.write_json(out / "processor_config.json", preset.processor)
    for file in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "generation_config.json"):
        shutil.copyfile(folder / file, out / file)
    back = sorted(((new, old) for old, new in NAMES), key=lambda pair: -len(pair[0]))           # `model.` last
    save_file({renamed(k, back): v.clone() for k, v in tensors(folder).items()}, out / "model.safetensors", metadata={"format": "pt"})
    return out


class Original(Focus):
    def __init__(self, folder):
        with tempfile.TemporaryDirectory() as work:
            super().__init__(twin(folder, Path(work)))
        self.dir, self.around = folder, KINDS[json.loads((folder / "config.json").read_text())["architectures"][0]]["prompt"]

    def prompt_ids(self, prompt, spelling="<image>"):
        """LLaVA's `tokenizer_image_token`: the conversation is split at `<image>`, the tokenizer encodes each part with its
        post-processor, and where that puts BOS first, the parts after the first lose it."""
        tokenizer = self.processor.tokenizer
        assert not any(token.content in prompt for token in tokenizer.added_tokens_decoder.values()) and "<image>" not in prompt
        before, after = (tokenizer(part)["input_ids"] for part in (self.around[0], f"\n{prompt}{self.around[1]}"))
        bos = tokenizer.bos_token_id is not None and before[:1] == [tokenizer.bos_token_id]
        return before + [self.model.config.image_token_id] + after[bos:]


def opened(folder):
    return Original(folder) if is_original(folder) else Focus(folder)
