"""GGUF files for the tests: random blocks of every type, and two checkpoints of the fixtures. Needs numpy and gguf only.

usage: make_gguf.py [FIXTURES]            writes FIXTURES/gguf
       make_gguf.py DIR OUT [TYPE [new]]  writes OUT/text.gguf and OUT/mmproj.gguf of a checkpoint in Hugging Face's layout

TYPE is the type of the matrices: f32, f16 (default), or one that gguf can quantise, such as q8_0.
The checkpoint of the second use can be a published LLaVA-NeXT or LLaVA-1.5 with Llama, Mistral or Qwen2; or one of
`fovea-benches checkpoint`, whose vocabulary of words becomes one of bytes, because GGUF has no such vocabulary.
"""
import json
import pathlib
import sys

import gguf
import numpy as np
from gguf import GGMLQuantizationType as T

HERE = pathlib.Path(__file__).resolve().parent
sys.path.append(str(HERE.parents[1] / "benches" / "peers"))
from compare import letters  # noqa: E402
# Types of the tokens in `tokenizer.ggml.token_type`.
NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = 1, 2, 3, 4, 5, 6


def blocks(path):
    """Three rows of every type, and the values that gguf computes from them."""
    random = np.random.default_rng(7)
    width = 512
    writer = gguf.GGUFWriter(path, "blocks")
    writer.add_array("test.numbers", [1, 2, 3])
    writer.add_array("test.texts", ["a", "é"])
    writer.add_float32("test.float", 0.5)
    writer.add_bool("test.flag", True)
    writer.add_int8("test.negative", -3)
    for kind in (T.F32, T.F16, T.BF16, T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1, T.Q8_0):
        values = random.standard_normal((3, width)).astype(np.float32)
        values[1] *= 1e-3
        values[2, :32] = 0
        stored = gguf.quants.quantize(values, kind)
        add(writer, kind.name, stored, kind)
        writer.add_tensor(f"{kind.name}.values", gguf.quants.dequantize(stored, kind))
    for kind, halves in ((T.Q4_K, (0, 2)), (T.Q5_K, (0, 2)), (T.Q6_K, (208,))):
        values, size = gguf.GGML_QUANT_SIZES[kind]
        stored = random.integers(0, 256, (3, width // values, size), np.uint8)
        for at in halves:
            scales = (random.standard_normal((3, width // values)) * 1e-3).astype(np.float16)
            scales[2, 0] = 3e-7  # subnormal
            stored[..., at : at + 2] = scales[..., None].view(np.uint8)
        stored = stored.reshape(3, -1)
        add(writer, kind.name, stored, kind)
        writer.add_tensor(f"{kind.name}.values", gguf.quants.dequantize(stored, kind))
    add(writer, "Q2_K", random.integers(0, 256, (1, 84), np.uint8), T.Q2_K)
    write(writer)


def add(writer, name, stored, kind):
    """A tensor whose bytes are ready."""
    plain = kind in (T.F32, T.F16)
    writer.add_tensor(name, stored, raw_dtype=None if plain else kind)


def write(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def read(folder):
    """All tensors of a checkpoint, in f32."""
    tensors = {}
    for file in sorted(folder.glob("*.safetensors")):
        data = file.read_bytes()
        start = 8 + int.from_bytes(data[:8], "little")
        for name, entry in json.loads(data[8:start]).items():
            if name == "__metadata__":
                continue
            first, last = entry["data_offsets"]
            raw = data[start + first : start + last]
            if entry["dtype"] == "BF16":  # the upper half of an f32; numpy has no bf16
                values = (np.frombuffer(raw, np.uint16).astype(np.uint32) << 16).view(np.float32)
            else:
                values = np.frombuffer(raw, {"F16": np.float16, "F32": np.float32}[entry["dtype"]]).astype(np.float32)
            tensors[name] = values.reshape(entry["shape"])
    return tensors


def permute(x, heads):
    """Rows of a query or key matrix in llama.cpp's order."""
    return x.reshape(heads, 2, x.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(x.shape)


def vocabulary(writer, tokenizer, side, rows):
    """`tokenizer.ggml.*`, as `convert_hf_to_gguf.py` writes it."""
    if "merges" not in tokenizer["model"]:
        tokenizer = of_bytes(tokenizer, rows)
    model = tokenizer["model"]
    spm = bool(model.get("byte_fallback"))
    tokens = [f"[PAD{i}]" for i in range(rows)]
    types = [UNUSED] * rows
    scores = [-10000.0] * rows
    merges = [m.split(" ") if isinstance(m, str) else m for m in model["merges"]]
    # SentencePiece's score of a token: the better, the earlier it is merged.
    order = {}
    for rank, (left, right) in enumerate(merges):
        order.setdefault(left + right, rank)
    for token, i in model["vocab"].items():
        is_byte = spm and len(token) == 6 and token.startswith("<0x")
        tokens[i], types[i] = token, BYTE if is_byte else NORMAL
        scores[i] = 0.0 if is_byte else -float(order.get(token, len(merges) + i))
    for token in tokenizer["added_tokens"]:
        i, text = token["id"], token["content"]
        kind = CONTROL if token["special"] else USER
        tokens[i], types[i], scores[i] = text, UNKNOWN if text == model.get("unk_token") else kind, -1000.0
    writer.add_tokenizer_model("llama" if spm else "gpt2")
    if not spm:
        writer.add_tokenizer_pre(pre_tokenizer(tokenizer))
        writer.add_token_merges([" ".join(merge) for merge in merges])
    writer.add_token_list(tokens)
    if spm:
        writer.add_token_scores(scores)
    writer.add_token_types(types)
    post = json.dumps(tokenizer.get("post_processor"))
    writer.add_add_bos_token('"SpecialToken"' in post)
    ids = {token: i for i, token in reversed(list(enumerate(tokens)))}
    text = lambda value: value.get("content") if isinstance(value, dict) else value
    for key in ("bos", "eos", "pad", "unk"):
        if (i := ids.get(text(side.get(f"{key}_token")))) is not None:
            getattr(writer, f"add_{key}_token_id")(i)


def of_bytes(tokenizer, rows):
    """A vocabulary of bytes in place of one of words. Added tokens keep their ids; a list of merges must not be empty."""
    added = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    free = [i for i in range(rows) if i not in added.values()]
    vocab = added | dict(zip([*letters(), "qq"], free, strict=False))
    return tokenizer | {"model": {"vocab": vocab, "merges": ["q q"]}, "pre_tokenizer": {"type": "ByteLevel"}}


def pre_tokenizer(tokenizer):
    """The name for `tokenizer.ggml.pre`."""
    spelled = json.dumps(tokenizer["pre_tokenizer"])
    if "Regex" not in spelled:
        return "gpt-2"
    return "llama-bpe" if r"\\p{N}{1,3}" in spelled else "qwen2"


def template(folder, side):
    for file, of in (("chat_template.jinja", str), ("chat_template.json", lambda t: json.loads(t)["chat_template"])):
        if (folder / file).exists():
            return of((folder / file).read_text())
    return side.get("chat_template")


def checkpoint(folder, out, kind="f16", style="old"):
    """The two files. `style` old: the names and keys of llama.cpp's first converter for LLaVA; new: those of its later ones."""
    out.mkdir(parents=True, exist_ok=True)
    load = lambda file: json.loads((folder / file).read_text()) if (folder / file).exists() else {}
    config, side = load("config.json"), load("tokenizer_config.json")
    tokenizer, tensors = load("tokenizer.json"), read(folder)
    processor = load("preprocessor_config.json") or load("processor_config.json").get("image_processor", {})
    text, vision = config["text_config"], config["vision_config"]
    qwen = text.get("model_type") == "qwen2"
    arch = "qwen2" if qwen else "llama"

    def put(writer, name, x, matrix):
        if matrix and kind not in ("f16", "f32") and x.shape[-1] % 32 == 0:
            of = T[kind.upper()]
            return add(writer, name, gguf.quants.quantize(np.ascontiguousarray(x), of), of)
        writer.add_tensor(name, np.ascontiguousarray(x, np.float16 if matrix and kind != "f32" else np.float32))

    width, heads = text.get("hidden_size", 4096), text.get("num_attention_heads", 32)
    default = 8 if text.get("model_type") == "mistral" else heads
    keys = text.get("num_key_value_heads", default)
    head = text.get("head_dim", width // heads)
    writer = gguf.GGUFWriter(out / "text.gguf", arch)
    writer.add_name(folder.name)
    writer.add_block_count(text["num_hidden_layers"])
    writer.add_context_length(text.get("max_position_embeddings", 2048))
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(text["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(keys)
    writer.add_layer_norm_rms_eps(text.get("rms_norm_eps", 1e-6))
    rope = text.get("rope_parameters") or {}
    writer.add_rope_freq_base(float(rope.get("rope_theta", text.get("rope_theta", 1e4))))
    if not qwen:
        writer.add_rope_dimension_count(head)
        writer.add_vocab_size(text["vocab_size"])
    if head * heads != width:
        writer.add_key_length(head)
        writer.add_value_length(head)
    vocabulary(writer, tokenizer, side, text["vocab_size"])
    if style == "new":
        writer.add_chat_template(template(folder, side))
    base = "language_model.model."
    put(writer, "token_embd.weight", tensors[base + "embed_tokens.weight"], True)
    put(writer, "output_norm.weight", tensors[base + "norm.weight"], False)
    if "language_model.lm_head.weight" in tensors:
        put(writer, "output.weight", tensors["language_model.lm_head.weight"], True)
    names = {
        "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
        "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
    }
    for layer in range(text["num_hidden_layers"]):
        for name, hub in names.items():
            for end in ("weight", "bias"):
                x = tensors.get(f"{base}layers.{layer}.{hub}.{end}")
                if x is None:
                    continue
                if not qwen and name in ("attn_q", "attn_k"):
                    x = permute(x, heads if name == "attn_q" else keys)
                put(writer, f"blk.{layer}.{name}.{end}", x, x.ndim == 2)
    write(writer)

    layers, feature = vision["num_hidden_layers"], config.get("vision_feature_layer", -2)
    kept = feature if feature >= 0 else layers + 1 + feature
    writer = gguf.GGUFWriter(out / "mmproj.gguf", "clip")
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_bool("clip.has_llava_projector", True)
    writer.add_string("clip.projector_type", "mlp")
    writer.add_bool("clip.use_gelu", vision.get("hidden_act") == "gelu")
    prefix = "clip.vision."
    for key, value in (
        ("image_size", vision["image_size"]), ("patch_size", vision["patch_size"]),
        ("embedding_length", vision["hidden_size"]), ("feed_forward_length", vision["intermediate_size"]),
        ("projection_dim", width), ("block_count", kept if style == "old" else layers),
        ("attention.head_count", vision["num_attention_heads"]),
    ):
        writer.add_uint32(prefix + key, value)
    writer.add_float32(prefix + "attention.layer_norm_epsilon", vision.get("layer_norm_eps", 1e-5))
    writer.add_array(prefix + "image_mean", processor.get("image_mean", [0.48145466, 0.4578275, 0.40821073]))
    writer.add_array(prefix + "image_std", processor.get("image_std", [0.26862954, 0.26130258, 0.27577711]))
    if "image_grid_pinpoints" in config:
        writer.add_string(prefix + "mm_patch_merge_type", "spatial_unpad")
        writer.add_array(prefix + "image_grid_pinpoints", [n for pair in config["image_grid_pinpoints"] for n in pair])
    if style == "new":
        writer.add_array(prefix + "feature_layer", [kept])
    bases = ("vision_tower.vision_model.", "vision_tower.")
    base = next(base for base in bases if base + "embeddings.patch_embedding.weight" in tensors)
    put(writer, "v.class_embd", tensors[base + "embeddings.class_embedding"], False)
    put(writer, "v.patch_embd.weight", tensors[base + "embeddings.patch_embedding.weight"], True)
    put(writer, "v.position_embd.weight", tensors[base + "embeddings.position_embedding.weight"], style == "old")
    # The first converter has the names of the two linear layers the wrong way round.
    up, down = ("ffn_down", "ffn_up") if style == "old" else ("ffn_up", "ffn_down")
    names = {
        "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
        "attn_out": "self_attn.out_proj", up: "mlp.fc1", down: "mlp.fc2", "ln1": "layer_norm1", "ln2": "layer_norm2",
    }
    for end in ("weight", "bias"):
        put(writer, f"v.pre_ln.{end}", tensors[f"{base}pre_layrnorm.{end}"], False)
        for layer in range(kept if style == "old" else layers):
            for name, hub in names.items():
                x = tensors[f"{base}encoder.layers.{layer}.{hub}.{end}"]
                put(writer, f"v.blk.{layer}.{name}.{end}", x, x.ndim == 2)
        for i, hub in ((0, "linear_1"), (2, "linear_2")):
            x = tensors[f"multi_modal_projector.{hub}.{end}"]
            put(writer, f"mm.{i}.{end}", x, x.ndim == 2)
    if "image_newline" in tensors:
        put(writer, "model.image_newline" if style == "old" else "v.image_newline", tensors["image_newline"], False)
    write(writer)


def main():
    if len(sys.argv) > 2:
        return checkpoint(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), *sys.argv[3:])
    fixtures = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else HERE.parent / "fixtures"
    out = fixtures / "gguf"
    out.mkdir(exist_ok=True)
    blocks(out / "blocks.gguf")
    checkpoint(fixtures / "vicuna-0", out / "vicuna-0", "f16", "old")
    checkpoint(fixtures / "qwen2-0", out / "qwen2-0", "q8_0", "new")


if __name__ == "__main__":
    main()
