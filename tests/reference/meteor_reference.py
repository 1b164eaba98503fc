#!/usr/bin/env python3
"""LLaVA-Meteor, AN INTERPRETATION OF OURS (the paper's method section is not public), as an executable specification in PyTorch.

    meteor_reference.py MODEL_DIR IMAGE PROMPT [--meteor JSON] [--inside JSON] [--new N] [--out TRACE.safetensors]
    meteor_reference.py --selftest                                   the scans against each other, float64

Known of "Top-Down Compression" (arXiv 2505.11945) are abstract and introduction only: a trainable Flash Global Fusion module of selective
state space operators aligns the feature space and lets each token perceive the whole picture and the instruction; a local-to-single
scanning order; Visual-Native Selection scores tokens by a visual and a native expert independently, aggregates, keeps the best; 75 to 95 %
fewer tokens. No method section, code or weights could be found. So: fuse first, then select; everything else below is OURS, each choice
a field of DEFAULTS with its reason. Do not call results of it LLaVA-Meteor's results.

    hidden (T, P*P, D) --[before-blocks]--> --projector--> --[after-blocks]--> fused (n, C) --[selection]--> tokens, scanline order

A block adds to its input what a selective scan makes of [instruction tokens, visual tokens]; its last matrix is zero at first, so an
untrained module is the identity on a stock checkpoint. MODEL_DIR may hold `meteor.*` tensors and `meteor` in config.json; without them the
module is created untrained. A Mamba block is described in arXiv 2312.00752 (S6), windowed scans in arXiv 2403.09338.

Shapes: D width of the scanned tokens (the tower's before the projector, C after it), E = expand * D channels, S states, R rank of delta,
L = I + n tokens of a sequence, I of them the instruction's.
"""
import argparse
import json
import math
import sys
from pathlib import Path

import torch
from compressors_reference import Piece, PATCH, answer, assemble, best, budget, gap, taps
from focus_reference import Focus, regions
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from torch.nn.functional import pad, silu, softplus

DEFAULTS = {
    # Flash Global Fusion
    "blocks": [["local", "before"], ["single", "before"]],
                                # [scan order, side of the projector] of each block, in turn. "local-to-single" read as: a pass in windowed order,
                                #   then a plain pass token by token. Before the projector: width 1024 not 4096, a sixteenth of the weights
    "window": 4,                # side of a local window: FocusLLaVA's region, so one layout serves both
    "d_state": 16,              # S, expand, d_conv, dt_rank (null: ceil(D / 16)): Mamba's own defaults
    "expand": 2,
    "d_conv": 4,                # 0: no convolution
    "dt_rank": None,
    "bidirectional": True,      # a causal scan shows the first patch nothing of the picture; the abstract promises every token the whole
    "discretise_b": "euler",    # "euler": delta * B, what Mamba's code does; "zoh": exact, but (exp(x) - 1) / x cancels near 0 and WGSL has no expm1
    "sequence": "image",        # "image": instruction, thumbnail, map in one scan ("holistic"); "tile": each tile on its own
    "instruction": "after_image",   # tokens of the prompt after the picture, as in the text-guided sampler: exact and known early; "none"
    "norm_eps": 1e-5,
    # Visual-Native Selection
    "visual_weight": 0.5,       # of the visual expert; 1 - it of the native expert
    "aggregate": "z_sum",       # "z_sum": sum of z-scores, smooth; "rank_sum", "rank_min" (the union of both experts' best): free of outliers, many ties
    "native_pool": "mean",      # over instruction tokens: "mean" or "max" of the cosines
    "keep": {"ratio": 0.25},    # the abstract's range is .25 to .05
    "select": "image",          # "image": one budget for all; "tile": as many of each tile's candidates
    "newlines": "rows",         # as compressors_reference
    "thumbnail": "compress",    # 95 % fewer is out of reach with the thumbnail whole
}


# ---------------------------------------------------------------- the selective scan

def discretise(delta, a, b, u, how="euler"):
    """delta, u (L, E), a (E, S) negative, b (L, S) -> decay, drive (L, E, S) of h_t = decay_t * h_{t-1} + drive_t.

        decay = exp(delta a)                      zero-order hold
        drive = delta b u                         "euler"       or      (exp(delta a) - 1) / a * b u      "zoh"

    | a = -1, delta = ln 2, b = 1, u = 1 | decay .5 | drive euler .693147, zoh .5 |
    """
    decay = (delta[..., None] * a).exp()
    if how == "zoh":
        return decay, torch.expm1(delta[..., None] * a) / a * b[:, None] * u[..., None]
    return decay, (delta * u)[..., None] * b[:, None]


def scan_sequential(decay, drive):
    """The recurrence, h_{-1} = 0. (L, E, S) twice -> h (L, E, S). L steps; E * S independent ones in each.

    As a kernel: one invocation a channel and state, y summed over the states on the way, h never stored (L E S floats are 385 MB for
    2880 patches and 60 words at D = 1024). E * S = 32768 invocations fill a GPU at that width; only narrow models or long pictures need chunks.

    | decay .5, drive 1 1 1 | h = 1 1.5 1.75 |   | decay .5 0 .5, drive 1 1 1 | h = 1 1 1.5 |
    """
    h, out = torch.zeros_like(drive[0]), []
    for a, b in zip(decay, drive):
        h = a * h + b
        out.append(h)
    return torch.stack(out)


def then(first, second):
    """Two steps as one: (a, b) means h -> a h + b. Associative, not commutative; the identity is (1, 0).

    | (.5, 1) then (.25, 2) | (.125, 2.25) |
    """
    return second[0] * first[0], second[0] * first[1] + second[1]


def scan_blelloch(decay, drive):
    """The same by a work-efficient parallel scan: up-sweep, down-sweep on the next power of two, identities at the end.

    Level d of the up-sweep joins pairs 2^d apart into their right one; the root then becomes the identity; the down-sweep gives every right
    child the combination of all before it: (left sibling's old value) after (parent's). The result is exclusive; joining each step once more makes it
    inclusive. Invocation i of a level works on left = (2i + 1) step - 1 and right = left + step, while right < size; a barrier after
    each of the 2 log2(size) levels; two numbers a step and state, 8 * size bytes of workgroup memory. Earlier operand first: `then` does not
    commute.
    """
    length, size = len(decay), 1
    while size < length:
        size *= 2
    a = torch.cat([decay, torch.ones(size - length, *decay.shape[1:], dtype=decay.dtype)])
    b = torch.cat([drive, torch.zeros(size - length, *drive.shape[1:], dtype=drive.dtype)])
    step = 1
    while step < size:
        left, right = torch.arange(step - 1, size, 2 * step), torch.arange(2 * step - 1, size, 2 * step)
        a, b = a.clone(), b.clone()
        a[right], b[right] = then((a[left], b[left]), (a[right], b[right]))
        step *= 2
    a, b = a.clone(), b.clone()
    a[-1], b[-1] = 1, 0
    while step > 1:
        step //= 2
        left, right = torch.arange(step - 1, size, 2 * step), torch.arange(2 * step - 1, size, 2 * step)
        a, b = a.clone(), b.clone()
        below, above = (a[left], b[left]), (a[right], b[right])
        a[left], b[left] = above
        a[right], b[right] = then(above, below)
    return then((a[:length], b[:length]), (decay, drive))[1]


def scan_chunked(delta, a, drive, chunk=64, inner=scan_sequential):
    """The same in chunks of `chunk` steps, three passes, as kernels would do it; `inner` scans inside a chunk (either form above).

      1  every chunk alone, from h = 0: local states; the chunk's end state (E, S) and its sum of delta (E,)
      2  over the chunks, one thread a channel and state:  H_0 = 0,  H_{c+1} = exp(a * sum delta_c) H_c + end_c
      3  h_t = local_t + exp(a * (delta summed from the chunk's start to t)) H_c

    A product of decays is exp(a * a sum of deltas): one running sum a channel instead of one product a state, and no product of many
    small numbers. Never divide by a product of decays (the textbook's closed form): it overflows.
    Written with tensor operations it is chunk + L / chunk steps deep, so an autodiff graph of it stays small: chunk about sqrt(L).
    """
    length, (channels, states) = len(delta), a.shape
    gaps = -length % chunk
    delta = pad(delta, (0, 0, 0, gaps)).view(-1, chunk, channels)
    drive = pad(drive, (0, 0, 0, 0, 0, gaps)).view(-1, chunk, channels, states)
    decay = (delta[..., None] * a).exp()
    local = torch.stack([inner(x, y) for x, y in zip(decay, drive)])                         # pass 1
    since = delta.cumsum(1)
    carry, carries = torch.zeros(channels, states, dtype=drive.dtype), []
    for c in range(len(local)):                                                              # pass 2
        carries.append(carry)
        carry = (since[c, -1, :, None] * a).exp() * carry + local[c, -1]
    h = local + (since[..., None] * a).exp() * torch.stack(carries)[:, None]                  # pass 3
    return h.flatten(0, 1)[:length]


def selective_scan(u, delta, a, b, c, d, how="euler", scan=None):
    """S6: u, delta (L, E), a (E, S), b, c (L, S), d (E,) -> y (L, E).   y_t = sum_s c_t,s h_t,s + d u_t

    | 1 channel, 1 state: a = -1, delta = ln 2, b = c = 1, d = 0, u = 1 1 1 | euler .693147 1.039721 1.213008; zoh .5 .75 .875 |
    """
    decay, drive = discretise(delta, a, b, u, how)
    h = scan(decay, drive) if scan else scan_chunked(delta, a, drive)
    return (h * c[:, None]).sum(-1) + d * u


def selective_scan_passes(u, delta, a, b, c, d, chunk=64):
    """selective_scan ("euler") as three kernels that store no states: what a WGSL implementation may follow line by line.

        pass 1  workgroup (chunk, some channels): h from 0 through the chunk; writes y (L, E) of it alone, the end state (chunks, E, S)
                and the chunk's sum of delta (chunks, E)
        pass 2  invocation (channel, state): turns end states into what each chunk starts from, in place: the old value, then
                carry = exp(a * sum) * carry + old
        pass 3  invocation (step, channel): y += sum_s c_s exp(a_s * (delta summed from the chunk's start to here)) * start_s

    Extra memory: L E + L / chunk * E * (S + 1) floats, 30 MB at 2940 tokens, D = 1024, chunk 64. Pass 3 is skipped for the first chunk.
    """
    length, (channels, states) = len(u), a.shape
    y, ends, sums = torch.zeros_like(u), [], []
    for start in range(0, length, chunk):                                                   # pass 1
        h = torch.zeros(channels, states, dtype=u.dtype)
        for t in range(start, min(start + chunk, length)):
            h = (delta[t, :, None] * a).exp() * h + (delta[t] * u[t])[:, None] * b[t]
            y[t] = (h * c[t]).sum(-1) + d * u[t]
        ends.append(h)
        sums.append(delta[start:start + chunk].sum(0))
    carry = torch.zeros(channels, states, dtype=u.dtype)
    for i in range(len(ends)):                                                              # pass 2
        old, ends[i] = ends[i], carry
        carry = (sums[i][:, None] * a).exp() * carry + old
    for i, start in enumerate(range(0, length, chunk)):                                      # pass 3
        since = delta[start:start + chunk].cumsum(0)
        y[start:start + chunk] += ((since[..., None] * a).exp() * ends[i] * c[start:start + chunk, None]).sum(-1)
    return y


def selective_scan_backward(grad, u, delta, a, b, c, d):
    """Gradients of selective_scan ("euler") by hand, for a kernel: one scan forward, one backward in time.

        g_t = c_t dy_t + decay_{t+1} g_{t+1}        (the same scan, reversed, decays shifted by one)
        d drive_t = g_t,   d decay_t = g_t h_{t-1},   d delta = sum_s (g b u + g h_{t-1} decay a),   d a = sum_t g h_{t-1} decay delta
        d u = dy d + sum_s g delta b,   d b = sum_e g delta u,   d c = sum_e dy h,   d d = sum_t dy u
    """
    decay, drive = discretise(delta, a, b, u)
    h = scan_sequential(decay, drive)
    before = torch.cat([torch.zeros_like(h[:1]), h[:-1]])
    after = torch.cat([decay[1:], torch.zeros_like(decay[:1])])
    g = scan_sequential(after.flip(0), (c[:, None] * grad[..., None]).flip(0)).flip(0)
    through = g * before * decay
    return {"u": grad * d + (g * b[:, None]).sum(-1) * delta, "delta": (g * b[:, None]).sum(-1) * u + (through * a).sum(-1),
            "a": (through * delta[..., None]).sum(0), "b": (g * (delta * u)[..., None]).sum(1), "c": (grad[..., None] * h).sum(1), "d": (grad * u).sum(0)}


# ---------------------------------------------------------------- Flash Global Fusion

def local_order(height, width, window):
    """Raster numbers in the order of a local scan: raster inside each window, windows in raster order, the last ones may be partial.

    | 3 x 5, window 2 | 0 1 5 6 | 2 3 7 8 | 4 9 | 10 11 | 12 13 | 14 |
    """
    return [y * width + x for top, left in regions(height, width, window)
            for y in range(top, min(top + window, height)) for x in range(left, min(left + window, width))]


def sequences(tap, cfg, order):
    """Which patches are scanned together, and how: [[stock index, ...], ...]. "image": thumbnail then map; "tile": each tile's own patches."""
    p, line, cells = tap.patches, tap.width + 1, tap.cells
    thumbnail = [[y * p + x for x in range(p)] for y in range(p)]
    grids = [[[p * p + y * line + x for x in range(tap.width)] for y in range(tap.height)]]
    if cfg["sequence"] == "tile":
        rows = {}
        for i in sum(grids[0], []):
            rows.setdefault(cells[i][0], {}).setdefault(cells[i][1] // p, []).append(i)
        grids = [list(tile.values()) for _, tile in sorted(rows.items())]
    scans = []
    for grid in [thumbnail] + grids:
        flat = [i for row in grid for i in row]
        scans.append([flat[j] for j in local_order(len(grid), len(grid[0]), cfg["window"])] if grid and order == "local" else flat)
    return [sum(scans, [])] if cfg["sequence"] == "image" else [s for s in scans if s]


def causal_conv(x, weight, bias):
    """Depthwise, over time, zeros before the start. x (L, E), weight (E, 1, K) -> (L, E): out_t = bias + sum_j weight[j] x_{t-K+1+j}.

    | x = 1 2 3, weight = (.5, .25, 1), bias 0 | 1 2.25 4 |
    """
    k = weight.shape[-1]
    x = pad(x, (0, 0, k - 1, 0))
    return sum(x[j:len(x) - k + 1 + j] * weight[:, 0, j] for j in range(k)) + bias


def direction(params, prefix, cfg, u, trace=None):
    """One direction of a block: u (L, E) -> y (L, E).

        u' = silu(conv(u)) (silu(u) without one);  (r, b, c) = W_x u';  delta = softplus(W_dt r + bias);  a = -exp(A_log);  y = selective_scan
    """
    get = lambda name: params[prefix + name]
    if cfg["d_conv"]:
        u = causal_conv(u, get("conv1d.weight"), get("conv1d.bias"))
    u = silu(u)
    states = get("A_log").shape[1]
    r, b, c = (u @ get("x_proj.weight").T).split([get("dt_proj.weight").shape[1], states, states], -1)
    delta = softplus(r @ get("dt_proj.weight").T + get("dt_proj.bias"))
    y = selective_scan(u, delta, -get("A_log").exp(), b, c, get("D"), cfg["discretise_b"])
    if trace is not None:
        trace |= {"scan.u": u, "scan.delta": delta, "scan.b": b, "scan.c": c, "scan.y": y}
    return y


def block(params, index, cfg, x, instructions, trace=None):
    """x (L, D), the first `instructions` of them the instruction's -> (L, D).

        (u, z) = W_in norm(x);  x + W_out ((y_forward + y_backward) * silu(z));  norm: RMS, times its weight

    The backward direction reads the instruction first, too, and then the visual tokens from the last to the first: the instruction must be
    known before the picture in both. Norm, W_in and W_out are shared by the directions, the rest is not (as in Vision Mamba).
    Instruction tokens have their own residual, so a second block reads the first block's result; blocks after the projector start
    again from the embeddings, and the instruction's tokens are dropped after the last block."""
    prefix = f"meteor.blocks.{index}."
    normed = x * (x.square().mean(-1, keepdim=True) + cfg["norm_eps"]).rsqrt() * params[prefix + "norm.weight"]
    u, z = (normed @ params[prefix + "in_proj.weight"].T).chunk(2, -1)
    y = direction(params, prefix + "forward.", cfg, u, trace)
    if cfg["bidirectional"]:
        turn = torch.cat([torch.arange(instructions), torch.arange(instructions, len(x)).flip(0)])
        y = y + direction(params, prefix + "backward.", cfg, u[turn])[turn]             # turn is its own inverse
    return x + (y * silu(z)) @ params[prefix + "out_proj.weight"].T


def fuse(params, cfg, tap, instruction, trace=None):
    """Taps and instruction embeddings (I, C) -> projected features (T, P*P, C); patches in the padding stay as they were."""
    cells, hidden = tap.cells, tap.hidden.clone()
    def side(x, where, words):
        for index, (order, place) in enumerate(cfg["blocks"]):
            if place != where:
                continue
            out = x.clone()
            for scan in sequences(tap, cfg, order):
                at = tuple(torch.tensor([cells[i] for i in scan]).T)
                fused = block(params, index, cfg, torch.cat([words, x[at]]), len(words), trace if index == 0 and not at[0][0] else None)
                out[at] = fused[len(words):]
                if cfg["sequence"] == "image":
                    words = fused[:len(words)]               # with separate tiles every tile starts from the instruction itself
            x = out
        return x
    if len(instruction) and any(place == "before" for _, place in cfg["blocks"]):
        words = instruction @ params["meteor.instruction.weight"].T
    else:
        words = hidden.new_zeros(0, hidden.shape[-1])
    hidden = side(hidden, "before", words)
    if trace is not None:
        trace["fused_hidden"] = hidden
    return side(tap.project(hidden), "after", instruction)


# ---------------------------------------------------------------- Visual-Native Selection

def z_score(x):
    """(x - mean) / population standard deviation, float64; zeros where all are equal.  | 1 2 3 | -1.224745 0 1.224745 |"""
    x = x.double()
    spread = x.std(unbiased=False)
    return (x - x.mean()) / spread if spread > 1e-12 else torch.zeros_like(x)


def native_expert(fused, instruction, pool="mean"):
    """How much each fused token is about the instruction, in the language model's own space: fused (n, C), instruction (I, C) -> (n,).

        mean (or max) over instruction tokens of cos(f_n, e_t).   No parameters; the module learns to move tokens towards their words.

    | f = (1,0) (0,2) (1,1), e = (3,0) (0,1) | mean .5 .5 .707107, max 1 1 .707107 |
    """
    unit = lambda x: x / x.norm(dim=-1, keepdim=True).clamp_min(1e-12)
    cosines = unit(fused) @ unit(instruction).T
    return cosines.amax(-1) if pool == "max" else cosines.mean(-1)


def combine(visual, native, weight, how):
    """Two experts' scores (n,), in whatever units -> one (n,), float64.

    | visual .4 .3 .2 .1 (ranks 0 1 2 3), native 0 .2 .1 .3 (ranks 3 1 2 0), weight .5                          |
    | z_sum 0 .447214 -.447214 0: keep 1 -> {1}  | rank_sum -3 -2 -4 -3: keep 1 -> {1}  | rank_min 0 -1 -2 0: keep 2 -> {0, 3} |
    """
    if how == "z_sum":
        return weight * z_score(visual) + (1 - weight) * z_score(native)
    rank = lambda s: torch.sort(s, descending=True, stable=True).indices.argsort().double()
    v, n = rank(visual), rank(native)
    return -torch.minimum(v, n) if how == "rank_min" else -(2 * weight * v + 2 * (1 - weight) * n)


def finest(x):
    """The least difference between two of x: what an error must stay below for no rank to move."""
    return float(x.double().sort().values.diff().min()) if len(x) > 1 else math.inf


def meteor(params, cfg, tap, instruction, trace=None):
    """Taps and instruction embeddings (I, C) -> visual tokens (N, C) and the trace.

    Visual expert: class attention of the tower's feature layer (compressors_reference.class_attention), of the picture, not fused.
    Without an instruction the visual expert decides alone. Kept tokens in scanline order, newlines by policy."""
    features = fuse(params, cfg, tap, instruction, trace)
    groups = [(0, tap.candidates(cfg["thumbnail"]))] if cfg["select"] == "image" else tap.per_tile(cfg["thumbnail"])
    kept, notes = [], {"candidates": [], "visual_expert": [], "native_expert": [], "scores": [], "margin": []}
    for _, members in groups:
        fused, visual = tap.pick(features, members), tap.pick(tap.attention[tap.feature_layer], members)
        native = native_expert(fused, instruction, cfg["native_pool"]) if len(instruction) else torch.zeros(len(members))
        scores = combine(visual, native, cfg["visual_weight"], cfg["aggregate"]) if len(instruction) else z_score(visual)
        k = budget(cfg["keep"], len(members)) if members else 0
        kept += [members[j] for j in best(scores, k)]
        margin = gap(scores, k) if cfg["aggregate"] == "z_sum" else min(finest(visual), finest(native))
        for name, value in zip(notes, [torch.tensor(members), visual, native, scores, torch.tensor([margin])]):
            notes[name].append(value)
    kept = sorted(kept)
    pieces = [Piece(i, PATCH, token, [i]) for i, token in zip(kept, tap.pick(features, kept))]
    if cfg["thumbnail"] == "keep" or not pieces:           # the map is empty: the thumbnail is kept
        pieces += [Piece(i, PATCH, token, [i]) for i, token in enumerate(features[0])]
    tokens, kind, place, _ = assemble(tap, pieces, cfg["newlines"])
    notes = {name: torch.cat(parts) for name, parts in notes.items()}
    notes["margin"] = notes["margin"].min()[None]
    return tokens, notes | {"kept": torch.tensor(kept), "token_kind": kind, "token_place": place, "fused_features": features}


# ---------------------------------------------------------------- weights

def shapes(cfg, d_vision, d_model):
    """Name -> shape of every tensor of the module, as in a checkpoint. All of them are saved in float32 (A_log must be)."""
    out = {}
    if any(place == "before" for _, place in cfg["blocks"]) and cfg["instruction"] != "none":
        out["meteor.instruction.weight"] = (d_vision, d_model)
    for i, (_, place) in enumerate(cfg["blocks"]):
        d = d_vision if place == "before" else d_model
        e, s, r = cfg["expand"] * d, cfg["d_state"], cfg["dt_rank"] or math.ceil(d / 16)
        out |= {f"meteor.blocks.{i}.norm.weight": (d,), f"meteor.blocks.{i}.in_proj.weight": (2 * e, d), f"meteor.blocks.{i}.out_proj.weight": (d, e)}
        for way in ["forward", "backward"][:2 if cfg["bidirectional"] else 1]:
            own = {"x_proj.weight": (r + 2 * s, e), "dt_proj.weight": (e, r), "dt_proj.bias": (e,), "A_log": (e, s), "D": (e,)}
            if cfg["d_conv"]:
                own |= {"conv1d.weight": (e, 1, cfg["d_conv"]), "conv1d.bias": (e,)}
            out |= {f"meteor.blocks.{i}.{way}.{name}": shape for name, shape in own.items()}
    return out


def create(cfg, d_vision, d_model, seed=0, identity=True):
    """Untrained weights: A = -(1..S) in every channel, delta log-uniform in [.001, .1], D = 1, W_out = 0 (identity) or random (for tests)."""
    rng, out = torch.Generator().manual_seed(seed), {}
    for name, shape in shapes(cfg, d_vision, d_model).items():
        last = name.rsplit(".", 2)[-2] if name.endswith(("weight", "bias")) else name.rsplit(".", 1)[-1]
        if last in ("norm", "D"):
            value = torch.ones(shape)
        elif last == "A_log":
            value = torch.arange(1, shape[1] + 1).float().log().expand(shape).clone()
        elif last == "out_proj" and identity:
            value = torch.zeros(shape)
        elif name.endswith("dt_proj.bias"):
            delta = torch.exp(torch.rand(shape, generator=rng) * math.log(100) + math.log(1e-3))
            value = delta + torch.log(-torch.expm1(-delta))
        elif name.endswith("bias"):
            value = torch.zeros(shape) if identity else torch.randn(shape, generator=rng) * 0.1
        else:
            value = torch.randn(shape, generator=rng) / math.sqrt(shape[-1])
        out[name] = value
    return out


def load(model_dir, cfg, d_vision, d_model):
    """`meteor.*` of a checkpoint, float32; an untrained module where it has none."""
    found = {}
    for shard in sorted(Path(model_dir).glob("*.safetensors")):
        with safe_open(shard, "pt") as f:
            found |= {k: f.get_tensor(k).float() for k in f.keys() if k.startswith("meteor.")}
    wanted = shapes(cfg, d_vision, d_model)
    if found and {k: tuple(v.shape) for k, v in found.items()} != wanted:
        raise ValueError(f"meteor.* tensors do not fit the config: {sorted(set(wanted) ^ set(found)) or 'shapes differ'}")
    return found or create(cfg, d_vision, d_model)


def settings(model_dir, given=None):
    return {**DEFAULTS, **json.loads((Path(model_dir) / "config.json").read_text()).get("meteor", {}), **(given or {})}


def instruction_of(focus, cfg, prompt):
    """Embeddings (I, C) of the prompt's tokens after the picture: the question and what the chat template puts behind it."""
    ids = focus.prompt_ids(prompt)
    after = ids[ids.index(focus.model.config.image_token_id) + 1:] if cfg["instruction"] == "after_image" else []
    return focus.llm.embed_tokens(torch.tensor(after, dtype=torch.long))


@torch.no_grad()
def run(focus, image, prompt, cfg=None, inside=None, new_tokens=4, params=None):
    """Picture and prompt -> trace, as compressors_reference.run. Everything after the tower depends on the question: only the taps can be kept."""
    cfg = settings(focus.dir, cfg)
    tap, pixels = taps(focus, image)
    params = params or load(focus.dir, cfg, tap.hidden.shape[-1], tap.features.shape[-1])
    words, trace = instruction_of(focus, cfg, prompt), {}
    tokens, notes = meteor(params, cfg, tap, words, trace)
    trace = {"pixel_values": pixels, "tap.features": tap.features, "tap.hidden": tap.hidden, "instruction": words,
             "tap.grid": torch.tensor([tap.patches, tap.rows, tap.cols, tap.top, tap.left, tap.height, tap.width]),
             f"tap.attention.{tap.feature_layer}": tap.attention[tap.feature_layer]} | {f"meteor.{k}": v for k, v in trace.items()} | notes
    return trace | answer(focus, tokens, prompt, tap.stock, inside, new_tokens)


# ---------------------------------------------------------------- training: what has gradients

def gate(tokens, scores):
    """Training only: kept tokens (N, C) times exp(s - stop_gradient(s)) = 1, so that the language model's loss reaches the scores (N,).

        forward: tokens, unchanged;   d loss / d s_n = <d loss / d x_n, x_n>

    The z-scores straddle zero, so the p / stop_gradient(p) of FocusLLaVA's sampler would divide by almost nothing here.

    What has gradients, from the language model's loss:
      fusion      every meteor.* tensor, through the kept tokens; and dropped tokens too, through the states that they left in kept ones:
                  this is what fusing before selecting buys. At the start W_out = 0: only W_out itself has a gradient in the first step.
      projector   as without fusion. Language model and tower: as the recipe unfreezes them.
      selection   the kept set has none. With `gate`: the native expert (through the fused tokens, and the embeddings if they train), kept
                  tokens only, apart from mean and spread of the z-scores. The visual expert is the tower's: detach it.
    Our suggestion: keep ~ U(.05, .5) a sample, so that one checkpoint serves every budget; first projector and fusion alone on captions.
    """
    return tokens * (scores - scores.detach()).exp()[:, None].to(tokens.dtype)


def selftest():
    rng = torch.Generator().manual_seed(0)
    worst = {}
    for length, e, s, lowest, highest in [(1, 2, 3, -5, 0), (7, 3, 4, -7, 1), (64, 4, 16, -7, -2), (65, 4, 16, -3, 3), (1000, 3, 8, -8, 4)]:
        rand = lambda *shape: torch.randn(*shape, generator=rng, dtype=torch.double)
        u, b, c, d, a = rand(length, e), rand(length, s), rand(length, s), rand(e), -torch.rand(e, s, generator=rng, dtype=torch.double) * 16 - .1
        delta = (torch.rand(length, e, generator=rng, dtype=torch.double) * (highest - lowest) + lowest).exp()
        for how in ("euler", "zoh"):
            decay, drive = discretise(delta, a, b, u, how)
            truth = scan_sequential(decay, drive)
            forms = {"blelloch": scan_blelloch(decay, drive)}
            for chunk in (1, 16, 64):
                forms[f"chunked {chunk}"] = scan_chunked(delta, a, drive, chunk)
                forms[f"chunked {chunk}, blelloch inside"] = scan_chunked(delta, a, drive, chunk, scan_blelloch)
            for name, h in forms.items():
                worst[name] = max(worst.get(name, 0), float((h - truth).abs().max() / truth.abs().max()))
            f32 = scan_chunked(delta.float(), a.float(), discretise(delta.float(), a.float(), b.float(), u.float(), how)[1])
            worst["float32, chunked 64"] = max(worst.get("float32, chunked 64", 0), float((f32 - truth).abs().max() / truth.abs().max()))
            f32 = scan_sequential(*discretise(delta.float(), a.float(), b.float(), u.float(), how))
            worst["float32, sequential"] = max(worst.get("float32, sequential", 0), float((f32 - truth).abs().max() / truth.abs().max()))
        inputs = {"u": u, "delta": delta, "a": a, "b": b, "c": c, "d": d}
        truth = selective_scan(**inputs, scan=scan_sequential)
        for chunk in (1, 16, 64):
            y = selective_scan_passes(**inputs, chunk=chunk)
            worst[f"three passes, chunk {chunk}"] = max(worst.get(f"three passes, chunk {chunk}", 0), float((y - truth).abs().max() / truth.abs().max()))
        leaves = {k: v.clone().requires_grad_() for k, v in inputs.items()}
        grad = rand(length, e)
        selective_scan(**leaves).backward(grad)
        for name, value in selective_scan_backward(grad, **inputs).items():
            scale = max(1.0, float(leaves[name].grad.abs().max()))
            worst["backward by hand"] = max(worst.get("backward by hand", 0), float((value - leaves[name].grad).abs().max()) / scale)
    for name, error in worst.items():
        print(f"{name:34} {error:.1e}")
        assert error < (1e-5 if "float32" in name else 1e-12), name


def main():
    if "--selftest" in sys.argv:
        return selftest()
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model"), parser.add_argument("image"), parser.add_argument("prompt")
    parser.add_argument("--meteor", type=json.loads), parser.add_argument("--inside", type=json.loads)
    parser.add_argument("--new", type=int, default=4), parser.add_argument("--out")
    args = parser.parse_args()
    trace = run(Focus(args.model), Image.open(args.image).convert("RGB"), args.prompt, args.meteor, args.inside, args.new)
    for name, value in trace.items():
        print(f"{name:17} {tuple(value.shape)!s:18} {value.dtype}", value.tolist() if value.numel() <= 12 else "")
    if args.out:
        save_file({k: v.detach().contiguous() for k, v in trace.items()}, args.out)


if __name__ == "__main__":
    main()
