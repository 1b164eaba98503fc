#!/usr/bin/env python3
"""Write tests/fixtures/quantised/: small quantised tensors, and the values that their own libraries read from them.

    pip install "mlx[cpu]" torch compressed-tensors safetensors numpy
    make_quantised.py

`mlx.safetensors` is written by MLX (0.32.4), `packed.safetensors` with the compressor of compressed-tensors (0.20.1), and
`values.safetensors` has the dequantised values in f32. Scales are rounded to f16 first where they are not f16 already, because
Fovea does that; with them every product is exact in f32, so the values can be compared bit for bit.
"""
from pathlib import Path

import mlx.core as mx
import numpy as np
import torch
from compressed_tensors.compressors.pack_quantized.base import PackedQuantizationCompressor
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from safetensors.torch import save_file

OUT = Path(__file__).resolve().parent.parent / "fixtures" / "quantised"
random = np.random.default_rng(7)


def normal(*shape):
    return random.standard_normal(shape).astype(np.float32)


def by_mlx():
    """name -> tensors of the file, and their values."""
    stored, values = {}, {}

    def module(name, codes, scales, biases, bits, group):
        half = [x.astype(mx.float16).astype(mx.float32) for x in (scales, biases)]
        values[f"mlx.{name}"] = np.array(mx.dequantize(codes, *half, group_size=group, bits=bits))
        stored.update({f"{name}.weight": codes, f"{name}.scales": scales, f"{name}.biases": biases})

    for name, rows, width, bits, group, dtype in [
        ("half", 5, 192, 4, 64, mx.float16),
        ("brain", 3, 96, 8, 32, mx.bfloat16),
        ("full", 2, 256, 4, 128, mx.float32),
    ]:
        # Not around 0: MLX's groups are symmetric by chance where the largest magnitudes of both signs are similar.
        weight = mx.array(normal(rows, width) + 1).astype(dtype)
        module(name, *mx.quantize(weight, group_size=group, bits=bits), bits, group)
    # A symmetric matrix: MLX's codes with biases of -8 scale.
    codes, scales, _ = mx.quantize(mx.array(normal(4, 96)).astype(mx.float16), group_size=32, bits=4)
    module("symmetric", codes, scales, scales * -8, 4, 32)
    # A convolution (out, rows, columns, channels), as MLX stores it.
    convolution = normal(6, 3, 4, 4)
    stored["convolution.weight"] = mx.array(convolution.transpose(0, 2, 3, 1))
    values["mlx.convolution"] = convolution
    mx.save_safetensors(str(OUT / "mlx.safetensors"), stored, metadata={"format": "mlx"})
    return values


def by_compressed_tensors():
    stored, values = {}, {}
    for name, rows, width, bits, group, symmetric in [
        ("four", 5, 256, 4, 128, True),
        ("eight", 3, 96, 8, 32, True),
        ("channels", 3, 192, 4, None, True),
        ("zeros", 11, 128, 4, 64, False),
    ]:
        strategy = {"strategy": "channel"} if group is None else {"strategy": "group", "group_size": group}
        args = QuantizationArgs(num_bits=bits, type="int", symmetric=symmetric, **strategy)
        groups = 1 if group is None else width // group
        weight = torch.from_numpy(normal(rows, width))
        # Seven bits: a scale times a zero point is exact in f16.
        scale = (torch.rand(rows, groups, generator=torch.manual_seed(bits)) * 63 + 64).round() / 1024
        state = {"weight": weight, "weight_scale": scale}
        if not symmetric:
            state["weight_zero_point"] = torch.from_numpy(random.integers(-8, 8, (rows, groups)).astype(np.int8))
        scheme = QuantizationScheme(targets=["Linear"], weights=args)
        packed = PackedQuantizationCompressor.compress(state, scheme)
        values[f"packed.{name}"] = PackedQuantizationCompressor.decompress(packed, scheme)["weight"].float().numpy()
        packed["weight_scale"] = scale.to(torch.bfloat16 if name == "four" else torch.float16)
        stored.update({f"{name}.{key}": value.contiguous() for key, value in packed.items()})
    save_file(stored, OUT / "packed.safetensors", metadata={"format": "pt"})
    return values


if __name__ == "__main__":
    OUT.mkdir(exist_ok=True)
    values = {**by_mlx(), **by_compressed_tensors()}
    values = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in values.items()}
    save_file(values, OUT / "values.safetensors")
