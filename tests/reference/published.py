"""Small random checkpoints with the files that the published ones have: same file names, keys, template structure, tokenizer
pipeline and tensor names; what sizes the model is small. make_checkpoint.py is the command line.

What is known of the published files is in README.md, "Published checkpoints in small". A key that a published
config.json leaves to its class's default is left out here as well, where the default fits a small model.
"""
import json
from pathlib import Path

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForImageTextToText

import chat

CORPUS = Path(__file__).with_name("corpus.txt")
CLIP = dict(mean=[0.48145466, 0.4578275, 0.40821073], std=[0.26862954, 0.26130258, 0.27577711])
HALF = dict(mean=[0.5, 0.5, 0.5], std=[0.5, 0.5, 0.5])
WORDS_LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
WORDS_QWEN = WORDS_LLAMA3.replace("{1,3}", "")


# ---------------------------------------------------------------- tokenizers

def learn(words, size):
    """Merges of a BPE over the corpus: (vocabulary, merges), ids in the order of learning."""
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = words
    alphabet = [] if isinstance(words, pre_tokenizers.Metaspace) else pre_tokenizers.ByteLevel.alphabet()
    tok.train_from_iterator([CORPUS.read_text()] * 2, trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False))
    model = json.loads(tok.to_str())["model"]
    return sorted(model["vocab"], key=model["vocab"].get), [tuple(m) for m in model["merges"]]


def numbered(pieces):
    return {piece: i for i, piece in enumerate(pieces)}


def nothing_added():
    """A post-processor that puts nothing around a text, as Llama's tokenizer is saved with `add_bos_token` false."""
    text = lambda name, of: {"Sequence": {"id": name, "type_id": of}}
    return {"type": "TemplateProcessing", "single": [text("A", 0)], "pair": [text("A", 0), text("B", 1)], "special_tokens": {}}


def bos_first(token, number, around=()):
    """A post-processor that puts `token` before every text, alone or (Llama 3) behind a ByteLevel one."""
    special, text = lambda of: {"SpecialToken": {"id": token, "type_id": of}}, lambda name, of: {"Sequence": {"id": name, "type_id": of}}
    template = {"type": "TemplateProcessing", "single": [special(0), text("A", 0)], "pair": [special(0), text("A", 0), special(1), text("B", 1)],
                "special_tokens": {token: {"id": token, "ids": [number], "tokens": [token]}}}
    return {"type": "Sequence", "processors": [*around, template]} if around else template


def with_post_processor(tok, post):
    return Tokenizer.from_str(json.dumps(json.loads(tok.to_str()) | {"post_processor": post}))


BYTES = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True}


def sentencepiece(added, first=("<unk>", "<s>", "</s>"), bos="<s>"):
    """Llama 2's and Mistral's: U+2581 for the space and before every text between special tokens, bytes for what the vocabulary
    lacks, `bos` put first by the post-processor (Yi: none)."""
    pieces, merges = learn(pre_tokenizers.Metaspace(), 300)
    known = [*first] + [f"<0x{byte:02X}>" for byte in range(256)]
    tok = Tokenizer(models.BPE(numbered(known + pieces), merges, unk_token=first[0], fuse_unk=True, byte_fallback=True))
    tok.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tok.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    tok.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in (*first, *added)])
    return with_post_processor(tok, bos_first(bos, tok.token_to_id(bos)) if bos else nothing_added())


def byte_level(words, added, nfc=False, first=(), bos=None):
    """Byte-level BPE with special tokens behind the vocabulary (`first`: ahead of it)."""
    steps = {"qwen": [pre_tokenizers.Split(Regex(WORDS_QWEN), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)],
             "llama3": [pre_tokenizers.Split(Regex(WORDS_LLAMA3), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)],
             "smollm": [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]}[words]
    pieces, merges = learn(pre_tokenizers.Sequence(steps), 480)
    tok = Tokenizer(models.BPE(numbered([*first, *pieces]), merges, ignore_merges=words == "llama3"))
    tok.pre_tokenizer, tok.decoder = pre_tokenizers.Sequence(steps), decoders.ByteLevel()
    if nfc:
        tok.normalizer = normalizers.NFC()
    tok.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in (*first, *added)])
    if words == "smollm":
        return tok
    return with_post_processor(tok, bos_first(bos, tok.token_to_id(bos), [BYTES]) if bos else BYTES | {"add_prefix_space": False, "use_regex": False})


# ---------------------------------------------------------------- configs

def clip(layers=3):
    return dict(model_type="clip_vision_model", hidden_size=48, intermediate_size=96, num_hidden_layers=layers, num_attention_heads=4,
                image_size=48, patch_size=6, projection_dim=32, vocab_size=32000)


def siglip(layers=2):
    """As so400m-patch14-384 its side is no multiple of its patch (384 = 27 * 14 + 6): the last pixels belong to no patch."""
    return dict(model_type="siglip_vision_model", hidden_size=48, intermediate_size=100, num_hidden_layers=layers, num_attention_heads=4,
                image_size=46, patch_size=6, vision_use_head=False)


def text(kind, **more):
    common = dict(hidden_size=64, intermediate_size=128, num_hidden_layers=4)
    own = {"llama2": dict(model_type="llama", num_attention_heads=4, max_position_embeddings=4096, rms_norm_eps=1e-5),
           "llama3": dict(model_type="llama", num_attention_heads=8, num_key_value_heads=2, max_position_embeddings=8192, rms_norm_eps=1e-5, rope_theta=500000.0),
           "mistral": dict(model_type="mistral", num_attention_heads=8, num_key_value_heads=4, max_position_embeddings=32768, rms_norm_eps=1e-5,
                           rope_theta=1000000.0, sliding_window=None),
           "yi": dict(model_type="llama", num_hidden_layers=3, intermediate_size=96, num_attention_heads=8, num_key_value_heads=2, max_position_embeddings=4096, rms_norm_eps=1e-5,
                      rope_theta=5000000.0, pad_token_id=0, use_cache=False),
           "granite": dict(model_type="granite", num_hidden_layers=3, intermediate_size=96, num_attention_heads=8, num_key_value_heads=2,
                           max_position_embeddings=16384, rms_norm_eps=1e-5, rope_theta=300000, attention_bias=False, mlp_bias=False, hidden_act="silu",
                           attention_multiplier=0.5, embedding_multiplier=12.0, logits_scaling=8.0, residual_multiplier=0.22,
                           bos_token_id=0, eos_token_id=0, pad_token_id=0),
           "qwen2": dict(model_type="qwen2", num_hidden_layers=3, intermediate_size=96, num_attention_heads=8, num_key_value_heads=2, max_position_embeddings=32768, rms_norm_eps=1e-6,
                         rope_theta=1000000.0, sliding_window=32768, use_sliding_window=False, max_window_layers=2),
           "smollm": dict(model_type="llama", hidden_size=72, num_hidden_layers=3, intermediate_size=96, num_attention_heads=6, num_key_value_heads=2, head_dim=12, max_position_embeddings=8192,
                          rms_norm_eps=1e-5, rope_theta=100000, qk_layer_norms=False, rope_interleaved=False,
                          use_resampler=False, is_llama_config=True)}[kind]
    return {**common, **own, "torch_dtype": "bfloat16", **more}


def pinpoints(side, pairs):
    return [[side * h, side * w] for h, w in pairs]


FIVE = [(1, 2), (2, 1), (2, 2), (3, 1), (1, 3)]
TWENTY_SEVEN = [(h, w) for h in range(1, 11) for w in range(1, 11) if h * w <= 10]
THIRTY_SIX = [(h, w) for h in range(1, 7) for w in range(1, 7)]
FOCUS = {"window": 4, "scales": [[4, 4], [2, 2], [1, 1]], "text_layer": 2, "gamma": 0.85}


class Preset:
    """One published checkpoint in small: what each of its files says."""

    def __init__(self, like, architecture, tokenizer, template, names, config, image, processor, generation, focus=FOCUS, tied=False, biased=False):
        self.like, self.architecture, self.tokenizer, self.template, self.names = like, architecture, tokenizer, template, names
        self.config, self.image, self.processor, self.generation = config, image, processor, generation
        self.focus, self.tied, self.biased = focus, tied, biased


def picture(kind, numbers, processor_class, **more):
    return {"do_convert_rgb": True, "do_normalize": True, "do_rescale": True, "do_resize": True, "image_mean": numbers["mean"], "image_std": numbers["std"],
            "image_processor_type": kind, "processor_class": processor_class, "resample": 3, "rescale_factor": 0.00392156862745098, **more}


def llava_next(like, tokenizer, template, names, text_config, generation, stop_pad, biased=False, tied=False, pad=True):
    pins = pinpoints(48, FIVE)
    return Preset(
        like, "LlavaNextForConditionalGeneration", tokenizer, template, names,
        dict(model_type="llava_next", ignore_index=-100, image_grid_pinpoints=pins, image_token_index="<image>", projector_hidden_act="gelu",
             text_config=text_config, tie_word_embeddings=False, torch_dtype="float16", use_image_newline_parameter=True, vision_config=clip(),
             vision_feature_layer=-2, vision_feature_select_strategy="default", **stop_pad),
        picture("LlavaNextImageProcessor", CLIP, "LlavaNextProcessor", aspect_ratio_setting="anyres", do_center_crop=True, **({"do_pad": True} if pad else {}),
                crop_size={"height": 48, "width": 48}, size={"shortest_edge": 48}, image_grid_pinpoints=pins),
        dict(image_token="<image>", num_additional_image_tokens=1, patch_size=6, processor_class="LlavaNextProcessor", vision_feature_select_strategy="default"),
        generation, biased=biased, tied=tied)


LLAMA2_NAMES = dict(tokenizer_class="LlamaTokenizer", bos_token="<s>", eos_token="</s>", unk_token="<unk>", legacy=False, add_bos_token=True,
                    add_eos_token=False, sp_model_kwargs={}, use_default_system_prompt=False)
QWEN_NAMES = dict(tokenizer_class="Qwen2Tokenizer", bos_token=None, eos_token="<|im_end|>", pad_token="<|endoftext|>", unk_token=None, add_prefix_space=False,
                  additional_special_tokens=["<|im_start|>", "<|im_end|>"], errors="replace", split_special_tokens=False)
LLAMA3_ADDED = ("<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
QWEN_ADDED = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


def granite():
    """A `llava_next` with SigLIP, whose features of several layers lie side by side, and granite's text model."""
    pins = pinpoints(46, TWENTY_SEVEN)
    first = ("<|end_of_text|>", "<fim_prefix>", "<fim_middle>", "<fim_suffix>", "<fim_pad>")
    added = ("<|start_of_role|>", "<|end_of_role|>", "<|tool_call|>", "<image>")
    return Preset(
        "ibm-granite/granite-vision-3.3-2b", "LlavaNextForConditionalGeneration", lambda: byte_level("smollm", added, first=first), chat.GRANITE,
        dict(tokenizer_class="PreTrainedTokenizerFast", bos_token="<|end_of_text|>", eos_token="<|end_of_text|>", pad_token="<|end_of_text|>",
             unk_token="<|end_of_text|>", add_prefix_space=False, additional_special_tokens=[*added[:3]], errors="replace", vocab_size=49152),
        dict(model_type="llava_next", image_grid_pinpoints=pins, image_seq_length=576, image_token_index="<image>", multimodal_projector_bias=True,
             pretrained_language_model="", pretrained_vision_tower="", projector_hidden_act="gelu", text_config=text("granite", tie_word_embeddings=True),
             tie_word_embeddings=True, torch_dtype="bfloat16", use_image_newline_parameter=True,
             vision_config=siglip(layers=4), vision_feature_layer=[-4, -3, -1], vision_feature_select_strategy="full"),
        picture("LlavaNextImageProcessor", HALF, "LlavaNextProcessor", do_center_crop=True, do_pad=True, crop_size={"height": 46, "width": 46},
                size={"shortest_edge": 46}, image_grid_pinpoints=pins),
        dict(image_token="<image>", patch_size=6, processor_class="LlavaNextProcessor", vision_feature_select_strategy="full"),
        dict(bos_token_id="<|end_of_text|>", eos_token_id="<|end_of_text|>", pad_token_id="<|end_of_text|>"), tied=True)


def smolvlm(like, tile, patch, factor, kind="Idefics3", longest=4):
    """Idefics3's layout: 256M and 500M have 8x8 tokens a tile (512 / 16 / 4); the 2.2B's tiles are odd, 9x9, with pixels left over (384 / 14 / 3).
    `longest` is how many tiles the longest side may have; with one, no picture is cut."""
    name = kind.lower()
    added = ("<global-img>", *(f"<row_{r}_col_{c}>" for r in range(1, 7) for c in range(1, 7)), "<fake_token_around_image>", "<image>",
             "<|reserved_special_token_0|>", "<end_of_utterance>")
    sides = dict(max_image_size={"longest_edge": tile}, size={"longest_edge": longest * tile})
    return Preset(
        like, f"{kind}ForConditionalGeneration", lambda: byte_level("smollm", added, first=("<|endoftext|>", "<|im_start|>", "<|im_end|>")), chat.SMOLVLM,
        dict(tokenizer_class="PreTrainedTokenizerFast", bos_token="<|im_start|>", eos_token="<end_of_utterance>", pad_token="<|im_end|>", unk_token="<|endoftext|>",
             additional_special_tokens=["<fake_token_around_image>", "<image>", "<end_of_utterance>"], add_prefix_space=False, truncation_side="left"),
        dict(model_type=name, image_token_id="<image>", pad_token_id=128002, scale_factor=factor, tie_word_embeddings=False, torch_dtype="float32", use_cache=False,
             text_config=text("smollm", tie_word_embeddings=False, pad_token_id=2, pixel_shuffle_factor=factor), use_reentrant_checkpointing=False,
             vision_config=dict(model_type="idefics3" if name == "idefics3" else "smolvlm_vision", hidden_size=48, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, image_size=tile,
                                patch_size=patch, tie_word_embeddings=False, use_base_siglip=False, **sides)),
        picture(f"{kind}ImageProcessor", HALF, f"{kind}Processor", do_image_splitting=True, do_pad=True, **sides) | {"resample": 1},
        dict(image_seq_len=(tile // patch // factor) ** 2, processor_class=f"{kind}Processor"),
        dict(bos_token_id=1, eos_token_id="<end_of_utterance>", pad_token_id=2), focus={**FOCUS, "window": 2, "scales": [[2, 2], [2, 1], [1, 1]]})


def presets():
    qwen = lambda *more: byte_level("qwen", (*QWEN_ADDED, *more), nfc=True)
    llama2 = lambda: sentencepiece(("<image>", "<pad>"))
    return {
        "bos": llava_next(
            "llava-hf/llama3-llava-next-8b-hf", lambda: byte_level("llama3", (*LLAMA3_ADDED, "<image>", "<pad>"), bos="<|begin_of_text|>"), chat.LLAMA3,
            dict(tokenizer_class="PreTrainedTokenizerFast", bos_token="<|begin_of_text|>", eos_token="<|eot_id|>", pad_token="<pad>",
                 model_input_names=["input_ids", "attention_mask"]),
            text("llama3"), dict(bos_token_id="<|begin_of_text|>", eos_token_id="<|eot_id|>"), {}),
        "vicuna": llava_next(
            "llava-hf/llava-v1.6-vicuna-7b-hf", llama2, chat.vicuna(), {**LLAMA2_NAMES, "pad_token": "<unk>", "padding_side": "right", "add_prefix_space": True},
            text("llama2"), dict(bos_token_id="<s>", eos_token_id="</s>", pad_token_id="<unk>"), {}),
        "mistral": llava_next(
            "llava-hf/llava-v1.6-mistral-7b-hf", llama2, chat.MISTRAL, {**LLAMA2_NAMES, "pad_token": "<pad>", "legacy": True},
            text("mistral"), dict(bos_token_id="<s>", eos_token_id="</s>"), {}),
        "qwen2": llava_next(
            "llava-hf/llava-next-72b-hf", lambda: qwen("<image>"), chat.QWEN, QWEN_NAMES, text("qwen2"),
            dict(bos_token_id="<|endoftext|>", eos_token_id="<|im_end|>"), {}, biased=True),
        "yi": llava_next(
            "llava-hf/llava-v1.6-34b-hf",
            lambda: sentencepiece(("<|reserved000|>", "<|reserved001|>", "<|reserved002|>", "<image>"),
                                  ("<unk>", "<|startoftext|>", "<|endoftext|>", "<|Human|>", "<|Assistant|>", "<|System|>", "<|im_start|>", "<|im_end|>"), None),
            chat.YI, {**LLAMA2_NAMES, "bos_token": "<|startoftext|>", "eos_token": "<|im_end|>", "pad_token": "<unk>", "add_bos_token": False, "legacy": True},
            text("yi"), dict(bos_token_id="<|startoftext|>", eos_token_id="<|im_end|>", pad_token_id="<unk>", use_cache=False), dict(use_cache=False), pad=False),
        "granite": granite(),
        "llava15": Preset(
            "llava-hf/llava-1.5-7b-hf", "LlavaForConditionalGeneration", llama2, chat.vicuna(), {**LLAMA2_NAMES, "pad_token": "<pad>", "add_prefix_space": None},
            dict(model_type="llava", ignore_index=-100, image_token_index="<image>", pad_token_id="<pad>", projector_hidden_act="gelu", text_config=text("llama2", num_hidden_layers=3, intermediate_size=96),
                 tie_word_embeddings=False, torch_dtype="float16", vision_config=clip(), vision_feature_layer=-2, vision_feature_select_strategy="default"),
            picture("CLIPImageProcessor", CLIP, "LlavaProcessor", do_center_crop=True, crop_size={"height": 48, "width": 48}, size={"shortest_edge": 48}),
            dict(image_token="<image>", num_additional_image_tokens=1, patch_size=6, processor_class="LlavaProcessor", vision_feature_select_strategy="default"),
            dict(bos_token_id="<s>", eos_token_id="</s>", pad_token_id="<pad>")),
        "interleave": Preset(
            "llava-hf/llava-interleave-qwen-0.5b-hf", "LlavaForConditionalGeneration", lambda: qwen("<image>"), chat.INTERLEAVE, QWEN_NAMES,
            dict(model_type="llava", ignore_index=-100, image_token_index="<image>", projector_hidden_act="gelu", text_config=text("qwen2", tie_word_embeddings=True),
                 torch_dtype="float16", vision_config=siglip(), vision_feature_layer=-1, vision_feature_select_strategy="full"),
            picture("SiglipImageProcessor", HALF, "LlavaProcessor", size={"height": 46, "width": 46}),
            dict(image_token="<image>", num_additional_image_tokens=0, patch_size=6, processor_class="LlavaProcessor", vision_feature_select_strategy="full"),
            dict(bos_token_id="<|endoftext|>", eos_token_id="<|im_end|>"), tied=True, biased=True),
        "onevision": Preset(
            "llava-hf/llava-onevision-qwen2-0.5b-ov-hf", "LlavaOnevisionForConditionalGeneration", lambda: qwen("<image>", "<video>"), chat.ONEVISION, QWEN_NAMES,
            dict(model_type="llava_onevision", image_grid_pinpoints=pinpoints(46, THIRTY_SIX), image_token_index="<image>", projector_hidden_act="gelu",
                 text_config=text("qwen2", tie_word_embeddings=True), tie_word_embeddings=False, torch_dtype="float16", use_image_newline_parameter=True,
                 video_token_index="<video>", vision_aspect_ratio="anyres_max_9", vision_config=siglip(), vision_feature_layer=-1, vision_feature_select_strategy="full"),
            picture("LlavaOnevisionImageProcessor", HALF, "LlavaOnevisionProcessor", do_pad=True, size={"height": 46, "width": 46},
                    image_grid_pinpoints=pinpoints(46, THIRTY_SIX)),
            dict(image_token="<image>", num_image_tokens=49, processor_class="LlavaOnevisionProcessor", video_token="<video>", vision_feature_select_strategy="full"),
            dict(bos_token_id="<|endoftext|>", eos_token_id="<|im_end|>"), tied=True, biased=True),
        "smolvlm": smolvlm("HuggingFaceTB/SmolVLM-256M-Instruct", tile=48, patch=3, factor=4),
        "smolvlm-odd": smolvlm("HuggingFaceTB/SmolVLM-Instruct", tile=55, patch=6, factor=3),
        "smolvlm2": smolvlm("HuggingFaceTB/SmolVLM2-256M-Video-Instruct", tile=48, patch=3, factor=4, kind="SmolVLM"),
        "smolvlm2-uncut": smolvlm("HuggingFaceTB/SmolVLM2-256M-Video-Instruct", tile=48, patch=3, factor=4, kind="SmolVLM", longest=1),
    }


# ---------------------------------------------------------------- writing

def write_json(path, value):
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def ids(tok, value):
    """Token texts in a config's `..._id`/`..._index` keys -> their ids."""
    return {k: tok.token_to_id(v) if k.endswith(("_id", "_index")) and isinstance(v, str) else v for k, v in value.items()}


def write_tokenizer(out, preset, tok):
    tok.save(str(out / "tokenizer.json"))
    added = {i: t for i, t in sorted(tok.get_added_tokens_decoder().items())}
    describe = lambda t: {k: getattr(t, k) for k in ("content", "lstrip", "normalized", "rstrip", "single_word", "special")}
    write_json(out / "tokenizer_config.json", {
        "added_tokens_decoder": {str(i): describe(t) for i, t in added.items()}, "clean_up_tokenization_spaces": False, "extra_special_tokens": {"image_token": "<image>"},
        "image_token": "<image>", "model_max_length": 1000000000000000019884624838656, "padding_side": "left", "processor_class": preset.processor["processor_class"],
        **preset.names})
    plain = lambda t: {"content": t, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    write_json(out / "special_tokens_map.json", {k: plain(v) for k, v in preset.names.items() if k in ("bos_token", "eos_token", "pad_token", "unk_token") and v})
    base = len(tok.get_vocab(with_added_tokens=False))
    write_json(out / "added_tokens.json", {t.content: i for i, t in added.items() if i >= base})


def write(out, name, seed, dtype, tied=None, focus=None, template=None, padded=16):
    """A directory like the published one: side files, then model.safetensors with the published tensor names. `tied`, `focus`
    and `template` take the place of the preset's."""
    preset = presets()[name]
    preset.focus, preset.template = focus or preset.focus, template or preset.template
    out.mkdir(parents=True, exist_ok=True)
    tok = preset.tokenizer()
    write_tokenizer(out, preset, tok)
    config = ids(tok, preset.config)
    rows = (len(tok.get_vocab()) + padded) // 8 * 8                     # the published vocabularies are padded as well
    config["text_config"] = {**config["text_config"], "vocab_size": rows}
    if tied is not None:
        config["text_config"]["tie_word_embeddings"] = tied
    write_json(out / "config.json", {"architectures": [preset.architecture], **config, "focus": preset.focus})
    write_json(out / "generation_config.json", {"_from_model_config": True, **ids(tok, preset.generation)})
    write_json(out / "preprocessor_config.json", preset.image)
    write_json(out / "processor_config.json", preset.processor)
    write_json(out / "chat_template.json", {"chat_template": preset.template})
    torch.manual_seed(seed)
    model = AutoModelForImageTextToText.from_config(AutoConfig.from_pretrained(out))
    # Where head and embedding are one, a wide embedding would repeat the last word. Granite's multipliers are compensated.
    times = lambda name: config["text_config"].get(f"{name}_multiplier", 1)
    embedding = (0.5 if preset.tied else 0.7) / times("embedding")
    with torch.no_grad():                                               # as in make_checkpoint.build: spread, so that nothing is near uniform
        for key, p in model.named_parameters():
            if key.endswith("embed_tokens.weight"):
                p.normal_(0, embedding)
            elif key.endswith(("o_proj.weight", "down_proj.weight")):
                p.normal_(0, 1.6 / p.shape[-1] ** 0.5 / times("residual"))
            elif p.ndim > 1:
                p.normal_(0, 1.6 / p.shape[-1] ** 0.5 if "embed" not in key else 0.7)
            elif "norm" in key and key.endswith("weight"):
                p.uniform_(0.7, 1.3)
            else:
                p.normal_(0, 0.5 if preset.biased and "_proj.bias" in key else 0.1)
    keep = (out / "config.json").read_bytes(), (out / "generation_config.json").read_bytes()
    model.to(dtype).save_pretrained(out)
    (out / "config.json").write_bytes(keep[0]), (out / "generation_config.json").write_bytes(keep[1])
    return preset
