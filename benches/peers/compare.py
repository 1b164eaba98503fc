#!/usr/bin/env python3
"""Runs Fovea and other programs on the same weights, and prints their speeds in one table.

    compare.py DIR WORK [--device cpu|wgpu] [--weights f32,f16,q8,q8+int8+tower,q4] [--kinds f16,q8_0,q4_0] [--new 16]
        [--node FOLDER] [--fovea COMMAND] [--json]

DIR is a checkpoint of `fovea-benches checkpoint`. WORK is a folder for the converted weights (GGUF), which are kept for the
next run. Fovea reads DIR and stores the weights as --weights says; with `+int8` and `+tower` it also has `--activations int8`
and `--tower q8`, as llama.cpp, whose tower has the bits of the text model and whose activations are always rounded. q8 and q8_0 have the same bits per value, and q4 and q4_0
in the layers: Fovea's embedding and head have 8 bits also with q4. All programs use two threads, one after the other. Run
nothing else at the same time: the threads of llama.cpp spin while they wait, so a busy machine slows it more than others.

| package | what runs |
|---|---|
| PyPI `gguf` | needed for the conversion |
| PyPI `xllamacpp` | llama.cpp with a picture, on the CPU |
| npm `node-llama-cpp`, in FOLDER/node_modules | llama.cpp, text only, on the CPU or, with `--device wgpu`, through Vulkan |
| PyPI `mistralrs` | mistral.rs with a picture, in f32, on the CPU |

A program that is missing or fails has a line with the reason. The answers are not compared: the weights are random. The work
is not quite the same: llama.cpp makes 2880 visual tokens of a 672x672 picture (it keeps no newlines), Fovea 2928; its prompt
has a token for each letter of the question.
"""
import argparse
import base64
import concurrent.futures
import importlib.metadata
import json
import multiprocessing
import os
import shlex
import shutil
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np

THREADS = 2
SIDE = 672
# CLIP's mean and standard deviation of pixels.
MEAN, DEVIATION = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
QUESTION = "What number is on the shirt of the person in the middle, and which colour has the shirt?"
MORE = {"int8": ["--activations", "int8"], "tower": ["--tower", "q8"]}
REPOSITORY = Path(__file__).resolve().parents[2]
COLUMNS = ("program", "weights", "samplers", "prompt", "prefill_s", "decode_tokens_per_s", "first_token_s")


class Checkpoint:
    """The tensors of a safetensors file, as float32."""

    def __init__(self, folder):
        self.config = json.loads((folder / "config.json").read_text())
        self.file = open(folder / "model.safetensors", "rb")
        length, = struct.unpack("<Q", self.file.read(8))
        self.header = json.loads(self.file.read(length))
        self.start = 8 + length

    def __contains__(self, name):
        return name in self.header

    def __getitem__(self, name):
        entry = self.header[name]
        begin, end = entry["data_offsets"]
        self.file.seek(self.start + begin)
        raw = self.file.read(end - begin)
        if entry["dtype"] == "BF16":
            values = (np.frombuffer(raw, np.uint16).astype(np.uint32) << 16).view(np.float32)
        else:
            values = np.frombuffer(raw, {"F16": np.float16, "F32": np.float32}[entry["dtype"]]).astype(np.float32)
        return values.reshape(entry["shape"])


def converted(source, work, kind):
    """Paths of the text model and of the vision tower as GGUF. Writes them if they are not there."""
    text, vision = work / f"text-{kind}.gguf", work / f"vision-{kind}.gguf"
    work.mkdir(parents=True, exist_ok=True)
    for path, write in ((text, write_text), (vision, write_vision)):
        if not path.exists():
            unfinished = path.with_suffix(".part")
            write(Checkpoint(source), unfinished, kind)
            unfinished.rename(path)
    return text, vision


def add(writer, name, values, kind="f32"):
    """Adds a tensor: vectors are f32, matrices as `kind` says."""
    import gguf
    values = np.ascontiguousarray(values, np.float32)
    if kind == "f16":
        writer.add_tensor(name, values.astype(np.float16))
    elif kind != "f32" and values.shape[-1] % 32 == 0:
        block = gguf.GGMLQuantizationType[kind.upper()]
        writer.add_tensor(name, gguf.quantize(values, block), raw_dtype=block)
    else:
        writer.add_tensor(name, values)


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_text(checkpoint, path, kind):
    import gguf
    c = checkpoint.config["text_config"]
    width, heads, vocabulary = c["hidden_size"], c["num_attention_heads"], c["vocab_size"]
    keys = c.get("num_key_value_heads", heads)
    d_head = c.get("head_dim", width // heads)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("random weights")
    writer.add_context_length(c["max_position_embeddings"])
    writer.add_block_count(c["num_hidden_layers"])
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(c["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(keys)
    writer.add_key_length(d_head)
    writer.add_value_length(d_head)
    writer.add_rope_dimension_count(d_head)
    writer.add_rope_freq_base(float(c["rope_theta"]))
    writer.add_layer_norm_rms_eps(c["rms_norm_eps"])
    writer.add_vocab_size(vocabulary)
    # A stand-in for the tokenizer: special tokens, then one token per byte, and that of the only merge, which no question has:
    # llama.cpp needs a list that is not empty, and Fovea the token of each merge. The ids of an answer mean nothing here.
    special = ["<s>", "<user>", "<assistant>", "<end>", "</s>", "<image>", "<pad>"]
    tokens = special + [f"<unused{i}>" for i in range(len(special), 10)] + letters() + ["qq"]
    tokens += [f"<unused{i}>" for i in range(len(tokens), vocabulary)]
    kinds = [3] * 10 + [1] * 257 + [5] * (vocabulary - 267)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list(tokens[:vocabulary])
    writer.add_token_types(kinds[:vocabulary])
    writer.add_token_merges(["q q"])
    writer.add_bos_token_id(c["bos_token_id"])
    writer.add_eos_token_id(c["eos_token_id"])
    writer.add_add_bos_token(False)
    writer.add_chat_template(
        "{% for m in messages %}<user>{{ m['content'] }}<end>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}")

    def interleaved(values, heads):
        """Rows of each head in the order of llama.cpp, which rotates neighbours, not halves."""
        return values.reshape(heads, 2, d_head // 2, width).transpose(0, 2, 1, 3).reshape(values.shape)

    model = "language_model.model."
    add(writer, "token_embd.weight", checkpoint[model + "embed_tokens.weight"], kind)
    add(writer, "output_norm.weight", checkpoint[model + "norm.weight"])
    if "language_model.lm_head.weight" in checkpoint:
        add(writer, "output.weight", checkpoint["language_model.lm_head.weight"], kind)
    for layer in range(c["num_hidden_layers"]):
        of = lambda name: checkpoint[f"{model}layers.{layer}.{name}.weight"]
        for theirs, ours in (("attn_norm", "input_layernorm"), ("ffn_norm", "post_attention_layernorm")):
            add(writer, f"blk.{layer}.{theirs}.weight", of(ours))
        add(writer, f"blk.{layer}.attn_q.weight", interleaved(of("self_attn.q_proj"), heads), kind)
        add(writer, f"blk.{layer}.attn_k.weight", interleaved(of("self_attn.k_proj"), keys), kind)
        for theirs, ours in (("attn_v", "self_attn.v_proj"), ("attn_output", "self_attn.o_proj"), ("ffn_gate", "mlp.gate_proj"),
                             ("ffn_up", "mlp.up_proj"), ("ffn_down", "mlp.down_proj")):
            add(writer, f"blk.{layer}.{theirs}.weight", of(ours), kind)
    finish(writer)


def letters():
    """The 256 letters that stand for bytes in byte-level BPE."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    names = {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}
    return [names[byte] for byte in range(256)]


def write_vision(checkpoint, path, kind):
    import gguf
    c, text = checkpoint.config["vision_config"], checkpoint.config["text_config"]
    writer = gguf.GGUFWriter(path, "clip")
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_bool("clip.use_gelu", False)
    writer.add_string("clip.projector_type", "mlp")
    numbers = {
        "image_size": c["image_size"], "patch_size": c["patch_size"], "embedding_length": c["hidden_size"],
        "feed_forward_length": c["intermediate_size"], "projection_dim": text["hidden_size"],
        "block_count": c["num_hidden_layers"], "attention.head_count": c["num_attention_heads"],
    }
    for name, value in numbers.items():
        writer.add_uint32(f"clip.vision.{name}", value)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", c.get("layer_norm_eps", 1e-5))
    writer.add_array("clip.vision.image_mean", MEAN)
    writer.add_array("clip.vision.image_std", DEVIATION)
    writer.add_string("clip.vision.mm_patch_merge_type", "spatial_unpad")
    writer.add_array("clip.vision.image_grid_pinpoints", [n for pair in checkpoint.config["image_grid_pinpoints"] for n in pair])
    # Without the key, Fovea reads the last state, and llama.cpp the one before.
    feature = checkpoint.config["vision_feature_layer"]
    writer.add_array("clip.vision.feature_layer", [feature if feature >= 0 else c["num_hidden_layers"] + 1 + feature])
    add(writer, "model.image_newline", checkpoint["image_newline"])
    tower = "vision_tower.vision_model."
    add(writer, "v.class_embd", checkpoint[tower + "embeddings.class_embedding"])
    add(writer, "v.patch_embd.weight", checkpoint[tower + "embeddings.patch_embedding.weight"])
    add(writer, "v.position_embd.weight", checkpoint[tower + "embeddings.position_embedding.weight"])
    matrices = {
        "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
        "attn_out": "self_attn.out_proj", "ffn_up": "mlp.fc1", "ffn_down": "mlp.fc2",
    }
    norms = {"ln1": "layer_norm1", "ln2": "layer_norm2"}
    for part in ("weight", "bias"):
        add(writer, f"v.pre_ln.{part}", checkpoint[f"{tower}pre_layrnorm.{part}"])
        for layer in range(c["num_hidden_layers"]):
            for theirs, ours in (matrices | norms).items():
                how = kind if part == "weight" and theirs in matrices else "f32"
                add(writer, f"v.blk.{layer}.{theirs}.{part}", checkpoint[f"{tower}encoder.layers.{layer}.{ours}.{part}"], how)
        for theirs, ours in ((0, 1), (2, 2)):
            how = kind if part == "weight" else "f32"
            add(writer, f"mm.{theirs}.{part}", checkpoint[f"multi_modal_projector.linear_{ours}.{part}"], how)
    finish(writer)


def write_picture(path):
    """A PNG with waves and noise, of the size of the picture of the benches."""
    y, x, channel = np.mgrid[0:SIDE, 0:SIDE, 0:3]
    noise = np.random.default_rng(1).integers(0, 32, (SIDE, SIDE, 3))
    rgb = (128 + 90 * np.sin(x * (channel + 2) / 40) * np.cos(y / 55) + noise).clip(0, 255).astype(np.uint8)
    rows = b"".join(b"\0" + row.tobytes() for row in rgb)

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def output(command, **options):
    """The last line or the JSON document that a command prints."""
    environment = os.environ | {"RAYON_NUM_THREADS": str(THREADS)} | options.pop("env", {})
    done = subprocess.run(command, capture_output=True, text=True, env=environment, **options)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "rror" in line]
        raise RuntimeError(lines[-1].strip() if lines else f"{command[0]} ended with {done.returncode}")
    return done.stdout.strip()


def named(report):
    """How Fovea stores matrices, and what else has 8 bits."""
    rounded = ["+int8"] if report["activations"] == "int8" else []
    tower = ["+tower"] if report["tower"] == "q8" else []
    return "".join([report["dtype"], *rounded, *tower])


def fovea(settings, prompt):
    """Rows with and without samplers; sets the length of the prompt of the others."""
    version = output(["git", "describe", "--always", "--dirty"], cwd=REPOSITORY)
    for weights in settings.weights.split(","):
        stored, *more = weights.split("+")
        command = [*shlex.split(settings.fovea), "pipeline", str(settings.dir), "--device", settings.device,
                   "--modes", "off,both", "--new-tokens", str(settings.new), "--weights", stored, "--json"]
        for word in more:
            command += MORE[word]
        report = json.loads(output(command, cwd=REPOSITORY))
        for row in report["rows"]:
            tokens = row["tokens"]["compressed"] + report["text_tokens"]
            prompt.setdefault("tokens", tokens)
            yield {
                "program": f"Fovea {version}, {settings.device}", "weights": named(report),
                "samplers": row["mode"], "prompt": tokens, "prefill_s": row["prefill_ms"] / 1e3,
                "decode_tokens_per_s": row["tokens_per_second"], "first_token_s": row["first_token_ms"] / 1e3,
                "launches_per_token": row["launches_per_token"],
            }


def node_llama(settings, kind, prompt):
    folder = settings.node.resolve() / "node_modules" / "node-llama-cpp"
    version = json.loads((folder / "package.json").read_text())["version"]
    gpu = False if settings.device == "cpu" else "vulkan"
    text, _ = converted(settings.dir, settings.work, kind)
    arguments = {"module": (folder / "dist" / "index.js").as_uri(), "path": str(text), "prompt": prompt, "fresh": settings.new,
                 "gpu": gpu, "threads": THREADS}
    command = ["node", str(Path(__file__).with_name("llama_text.mjs")), json.dumps(arguments)]
    result = json.loads(output(command, env={"GGML_VK_VISIBLE_DEVICES": "0"}).splitlines()[-1])
    return {"program": f"llama.cpp, node-llama-cpp {version}, {result.pop('gpu') or 'cpu'}", "prompt": prompt} | result


def xllamacpp(settings, kind, prompt):
    import xllamacpp
    text, vision = converted(settings.dir, settings.work, kind)
    parameters = xllamacpp.CommonParams()
    parameters.model.path, parameters.mmproj.path = str(text), str(vision)
    parameters.n_ctx = prompt + settings.new + 512
    parameters.n_batch = parameters.n_ubatch = 2048
    parameters.n_parallel = 1
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = THREADS
    parameters.warmup = False
    server = xllamacpp.Server(parameters)
    start = time.perf_counter()
    answer = server.handle_chat_completions({
        "messages": [{"role": "user", "content": content(settings.work / "picture.png")}],
        "max_tokens": settings.new, "temperature": 0, "cache_prompt": False,
    })
    seconds = time.perf_counter() - start
    answer = answer if isinstance(answer, dict) else json.loads(answer)
    if "timings" not in answer:
        raise RuntimeError(f"expected an answer with timings, got {answer}")
    timings = answer["timings"]
    # The time of the prompt has the tower in it: llama.cpp does not separate them.
    return {
        "program": f"llama.cpp, xllamacpp {importlib.metadata.version('xllamacpp')}, cpu",
        "prompt": answer["usage"]["prompt_tokens"], "decode_tokens_per_s": timings["predicted_per_second"],
        "first_token_s": seconds - timings["predicted_ms"] / 1e3,
    }


def for_mistral_rs(source, folder):
    """A copy of the checkpoint for mistral.rs: it needs a head even if the embedding is the head, all settings of the image
    processor, and another decoder of the tokenizer."""
    if folder.exists():
        return folder
    unfinished = folder.with_suffix(".part")
    unfinished.mkdir(exist_ok=True)
    for file in source.iterdir():
        if file.suffix != ".safetensors":
            (unfinished / file.name).write_bytes(file.read_bytes())
    tokenizer = json.loads((source / "tokenizer.json").read_text())
    tokenizer["decoder"] = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    (unfinished / "tokenizer.json").write_text(json.dumps(tokenizer))
    checkpoint = Checkpoint(source)
    side = checkpoint.config["vision_config"]["image_size"]
    (unfinished / "preprocessor_config.json").write_text(json.dumps({
        "image_processor_type": "LlavaNextImageProcessor", "image_grid_pinpoints": checkpoint.config["image_grid_pinpoints"],
        "size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}, "do_convert_rgb": True,
        "do_resize": True, "resample": 3, "do_center_crop": True, "do_rescale": True, "rescale_factor": 1 / 255,
        "do_normalize": True, "image_mean": MEAN, "image_std": DEVIATION,
    }))
    embedding = checkpoint.header["language_model.model.embed_tokens.weight"]
    begin, end = embedding["data_offsets"]
    size = (source / "model.safetensors").stat().st_size - checkpoint.start
    head = embedding | {"data_offsets": [size, size + end - begin]}
    header = json.dumps({"language_model.lm_head.weight": head} | checkpoint.header).encode()
    with open(unfinished / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        checkpoint.file.seek(checkpoint.start)
        shutil.copyfileobj(checkpoint.file, file)
        checkpoint.file.seek(checkpoint.start + begin)
        file.write(checkpoint.file.read(end - begin))
    unfinished.rename(folder)
    return folder


def mistral_rs(settings, _kind, _prompt):
    os.environ |= {"HF_HUB_OFFLINE": "1", "MISTRALRS_CPU_KV_F32": "1", "RAYON_NUM_THREADS": str(THREADS)}
    from mistralrs import ChatCompletionRequest, ModelDType, MultimodalArchitecture, Runner, Which
    folder = for_mistral_rs(settings.dir, settings.work / "mistral.rs")
    model = Which.MultimodalPlain(model_id=str(folder), arch=MultimodalArchitecture.LLaVANext, dtype=ModelDType.F32)
    runner = Runner(which=model)
    request = ChatCompletionRequest(
        model="default", messages=[{"role": "user", "content": content(settings.work / "picture.png", "<image>\n")}],
        max_tokens=settings.new, temperature=0.0)
    usage = runner.send_chat_completion_request(request).usage
    return {
        "program": f"mistral.rs {importlib.metadata.version('mistralrs')}, cpu", "prompt": usage.prompt_tokens,
        "decode_tokens_per_s": usage.avg_compl_tok_per_sec, "first_token_s": usage.total_prompt_time_sec,
    }


def content(picture, before=""):
    url = "data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode()
    return [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": before + QUESTION}]


def alone(function, *arguments):
    """Runs a function in a new process: its memory is free afterwards, and a crash ends only this process."""
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn) as process:
        return process.submit(quiet, function, *arguments).result()


def quiet(function, *arguments):
    os.dup2(2, 1)  # libraries print to stdout, which is for the table
    return function(*arguments)


def rows(settings):
    prompt = {}
    try:
        yield from fovea(settings, prompt)
    except Exception as error:
        yield {"program": "Fovea", "failed": str(error)}
    prompt = prompt.get("tokens", 2988)
    on_cpu = settings.device == "cpu"
    others = [(node_llama, kind) for kind in settings.kinds.split(",")]
    others += [(xllamacpp, kind) for kind in settings.kinds.split(",") if on_cpu] + [(mistral_rs, "f32")] * on_cpu
    for run, kind in others:
        try:
            row = run(settings, kind, prompt) if run is node_llama else alone(run, settings, kind, prompt)
            yield {"weights": kind, "samplers": "off"} | row
        except Exception as error:
            yield {"program": run.__name__, "weights": kind, "failed": str(error) or type(error).__name__}


def cell(row, base, column):
    value = row.get(column)
    if not isinstance(value, float):
        return "-" if value is None else str(value)
    if not isinstance(base.get(column), float) or row is base:
        return f"{value:.2f}"
    ratio = value / base[column] if column.endswith("per_s") else base[column] / value
    return f"{value:.2f} ({ratio:.2f}x)"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dir", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--weights", default="f32,f16,q8,q4", help="how Fovea stores its matrices; +int8: its activations, +tower: the vision tower in q8")
    parser.add_argument("--kinds", default="f16,q8_0,q4_0", help="how the others store theirs")
    parser.add_argument("--new", type=int, default=16)
    parser.add_argument("--node", type=Path, default=Path("."))
    parser.add_argument("--fovea", default="cargo run --quiet --bin fovea-benches --")
    parser.add_argument("--json", action="store_true")
    settings = parser.parse_args()
    for word in (word for weights in settings.weights.split(",") for word in weights.split("+")[1:]):
        if word not in MORE:
            parser.error(f"--weights: expected {' or '.join('+' + name for name in MORE)}, got +{word}")
    settings.dir, settings.work = settings.dir.resolve(), settings.work.resolve()
    settings.work.mkdir(parents=True, exist_ok=True)
    write_picture(settings.work / "picture.png")
    results = []
    for row in rows(settings):
        results.append(row)
        print(json.dumps(row), file=sys.stderr)
    if settings.json:
        print(json.dumps(results, indent=1))
        return
    base = results[0]
    print(f"{THREADS} threads, {settings.new} new tokens. In brackets: speed relative to the first line; above 1 is faster.\n")
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}".replace("_", " "))
    for row in results:
        if "failed" in row:
            print(f"| {row['program']} | {row.get('weights', '-')} | skipped: {row['failed']} |")
        else:
            print(f"| {' | '.join(cell(row, base, column) for column in COLUMNS)} |")


if __name__ == "__main__":
    main()
