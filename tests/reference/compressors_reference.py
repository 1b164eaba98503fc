#!/usr/bin/env python3
"""Executable specification of training-free visual-token compressors on a stock LLaVA-NeXT checkpoint, in PyTorch.

    compressors_reference.py MODEL_DIR IMAGE PROMPT [--before JSON] [--inside JSON] [--new N] [--out TRACE.safetensors]
    compressors_reference.py tiny picture.png "What is it?" --before '{"method": "fastervlm", "keep": {"ratio": 0.25}}'
    compressors_reference.py tiny picture.png "What is it?" --inside '{"method": "pyramiddrop"}'

Written from the descriptions in papers and repositories, to be read, not to be fast: float32, batch 1, one picture. Where an original
leaves something open, or does not cover LLaVA-NeXT's several tiles, cut padding and newlines, the text says "our choice".
`focus_reference.py` is the specification of everything around it. DEFAULTS below lists every setting.

Two kinds of method:

before  picture -> visual tokens, before the language model. One interface: `Taps` in, `Pieces` out (`assemble` makes the sequence).
inside  between two decoder layers: a layer, a score for each visual token, a budget. Survivors keep their order and their position ids.

Shapes: T tiles with the thumbnail as tile 0, P patches along a tile's side, D the vision tower's width, C the language model's,
Hx x Wx the feature map once the padding is cut off, H heads. Patches carry STOCK INDICES: their place in LLaVA-NeXT's own sequence,

    i < P*P                       thumbnail patch (i // P, i % P)
    P*P + y * (Wx + 1) + x        map patch (y, x); x = Wx is the newline of row y              stock = P*P + Hx * (Wx + 1) places

so rising stock index is scanline order, and a token's origin is a list of stock indices. Patches in the padding have none: they are
never candidates, never kept and count in no budget (our choice: FasterVLM, VisionZip and CDPruner let padding compete; HiRED cuts it
off after selecting, and so ends below its budget; GlobalCom2 cuts first, as here).

Rules common to all, each our choice:
  budget    {"ratio": r} ceil(r * n - 1e-9) of n candidates, {"count": k} min(k, n); at least one of any tile that has a candidate.
  ties      equal scores: the lower stock index. Selections are returned in rising order.
  newlines  "rows": the newline embedding after every map row that holds a token (as the vision-guided sampler has it; all kept = stock);
            "all": after every map row (GlobalCom2); "none" (what the code of FasterVLM, VisionZip, HiRED and CDPruner does on LLaVA-NeXT).
            Newlines are no candidates before the model and cost no budget; inside it they are visual tokens like any other.
  thumbnail "compress": a tile like the others; "keep": whole, outside the budget; "drop".
  positions the sequence that results is numbered 0, 1, 2, ... (every original that prunes before the model does so); "inside" keeps numbers.
  share     equivalent tokens = sum over decoder layers of the visual tokens (newlines included) in it / (layers * stock).
"""
import argparse
import json
import math
from dataclasses import dataclass, field

import torch
from focus_reference import Focus, top_k
from PIL import Image
from safetensors.torch import save_file
from transformers.models.llava_next.modeling_llava_next import get_anyres_image_grid_shape, unpad_image

PATCH, NEWLINE, MERGED, CLASS = range(4)       # what a visual token is

DEFAULTS = {
    "stock":       {"newlines": "all"},
    "fastervlm":   {"keep": {"ratio": 0.25}},
    "visionzip":   {"dominant": {"count": 54}, "contextual": {"count": 10}, "class_token": True, "merge": "add_mean"},
    "hired":       {"rate": 0.2, "alpha": 0.5, "budget_layer": 0, "budget_map": "spatial"},
    "divprune":    {"keep": {"ratio": 0.25}, "scope": "image"},
    "cdpruner":    {"keep": {"ratio": 0.25}, "scope": "tile", "relevance": "none"},
    "focus_heuristic": {"keep": {"ratio": 0.6}, "thumbnail": "keep"},
    "random":      {"keep": {"ratio": 0.25}, "seed": 0},
    "stride":      {"stride": [2, 2]},
}
INSIDE = {
    "fastv":       {"layer": 2, "keep": {"ratio": 0.5}},
    "pyramiddrop": {"layers": None, "ratios": [0.5, 0.25, 0.125], "positions": "original"},
    "text_guided": {"layer": None, "keep": {"gamma": 0.9}},
}


# ---------------------------------------------------------------- the input of a compressor

@dataclass
class Taps:
    """What tower, projector and layout give. `cells` says for every stock index which (tile, patch) it is; newlines are (-1, row)."""
    patches: int                    # P
    rows: int                       # tiles down
    cols: int                       # tiles across
    top: int                        # rows of patches cut off above the map, of the rows * P of the canvas
    left: int                       # columns cut off left of it
    height: int                     # Hx
    width: int                      # Wx
    features: torch.Tensor          # (T, P*P, C) after the projector
    hidden: torch.Tensor            # (T, P*P, D) what enters the projector: the tower's feature layer without the class token
    class_hidden: torch.Tensor      # (T, D) that layer's class token
    attention: dict                 # tower layer -> (T, P*P): attention of the class token to the patches, mean over heads
    keys: torch.Tensor              # (T, P*P, d) keys of layer `feature_layer`, mean over heads
    feature_layer: int              # the tower layer (0-based) whose output the projector gets: 22 of 24, 1 of 3
    newline: torch.Tensor           # (C,)
    project: callable = field(repr=False, default=None)     # (n, D) -> (n, C)

    @property
    def stock(self):
        return self.patches ** 2 + self.height * (self.width + 1)

    @property
    def cells(self):
        p, out = self.patches, [(0, i) for i in range(self.patches ** 2)]
        for y in range(self.top, self.top + self.height):
            out += [(1 + y // p * self.cols + x // p, y % p * p + x % p) for x in range(self.left, self.left + self.width)]
            out.append((-1, y - self.top))
        return out

    def candidates(self, thumbnail="compress"):
        """Stock indices of all patches, rising; without the thumbnail's unless it is compressed."""
        return [i for i, (tile, _) in enumerate(self.cells) if tile > 0 or (tile == 0 and thumbnail == "compress")]

    def per_tile(self, thumbnail="compress"):
        """[(tile, stock indices of its candidates, rising)], tiles without any left out."""
        cells, tiles = self.cells, {}
        for i in self.candidates(thumbnail):
            tiles.setdefault(cells[i][0], []).append(i)
        return sorted(tiles.items())

    def pick(self, per_tile_values, stock_indices):
        """Rows of a (T, P*P, ...) tensor by stock index -> (n, ...)."""
        cells = self.cells
        return torch.stack([per_tile_values[cells[i]] for i in stock_indices]) if len(stock_indices) else per_tile_values[0, :0]


def class_attention(layer, x):
    """Attention of the class token (row 0) to the patches in one CLIP encoder layer.  x (T, 1 + P*P, D): what enters the layer
    -> attention (T, P*P), keys (T, P*P, d), both means over heads.

        q = W_q LN1(x)_0 + b_q,  K = W_k LN1(x) + b_k,  A_h = softmax_{all 1 + P*P keys}(q_h K_h^T / sqrt(d)),  attention = mean_h A_h[1:]

    The softmax runs over the class token's own key too, so the row sums to less than 1. Only one query is needed: O(H P*P d) per tile.
    Sums over heads (VisionZip, HiRED) rank as means do.

    | heads' rows (2 heads: class, 3 patches) | mean over patches |
    | .1 .4 .2 .3  /  .3 .2 .4 .1             | .30 .30 .20       |
    """
    attn, x = layer.self_attn, layer.layer_norm1(x)
    t, n, _ = x.shape
    q = attn.q_proj(x[:, :1]).view(t, 1, -1, attn.head_dim).transpose(1, 2)
    k = attn.k_proj(x).view(t, n, -1, attn.head_dim).transpose(1, 2)
    rows = (q @ k.transpose(-1, -2) / math.sqrt(attn.head_dim)).softmax(-1)
    return rows[:, :, 0, 1:].mean(1), k[:, :, 1:].mean(1)


@torch.no_grad()
def taps(focus, image):
    """Picture -> Taps (and the pixel values). Every tower layer's class attention is computed here; a runtime computes what a method asks for."""
    inner, config = focus.model.model, focus.model.config
    if config.model_type != "llava_next" or config.vision_feature_select_strategy != "default":
        raise ValueError(f"compressors: specified for llava_next with a class token, got {config.model_type}")
    tower = getattr(inner.vision_tower, "vision_model", inner.vision_tower)
    pixels = focus.processor.image_processor(image, return_tensors="pt")
    values = pixels["pixel_values"].flatten(0, 1)
    states = inner.vision_tower(values, output_hidden_states=True).hidden_states
    layer = range(len(states))[config.vision_feature_layer] - 1          # hidden state s is the output of encoder layer s - 1
    attention, keys = {}, None
    for i in range(layer + 1):
        attention[i], keys = class_attention(tower.encoder.layers[i], states[i])
    features = states[layer + 1]
    p = config.vision_config.image_size // config.vision_config.patch_size
    rows, cols = get_anyres_image_grid_shape(pixels["image_sizes"][0], config.image_grid_pinpoints, config.vision_config.image_size)
    y, x = torch.meshgrid(torch.arange(rows * p), torch.arange(cols * p), indexing="ij")
    kept = unpad_image(torch.stack([y, x]), pixels["image_sizes"][0])    # (2, Hx, Wx): each map patch's place on the canvas
    height, width = kept.shape[1:]
    top, left = (int(v) for v in kept[:, 0, 0]) if height and width else ((rows * p - height) // 2, (cols * p - width) // 2)
    return Taps(patches=p, rows=rows, cols=cols, top=top, left=left, height=height, width=width,
                features=inner.multi_modal_projector(features[:, 1:]), hidden=features[:, 1:], class_hidden=features[:, 0],
                attention=attention, keys=keys, feature_layer=layer, newline=inner.image_newline.detach(),
                project=inner.multi_modal_projector), values


# ---------------------------------------------------------------- the output of a compressor

@dataclass
class Piece:
    """One visual token before the sequence is made."""
    place: int                      # its position: the stock index of its (target) patch; -1 the thumbnail's class token, stock + t - 1 tile t's
    kind: int                       # PATCH, MERGED or CLASS
    token: torch.Tensor             # (C,)
    origin: list                    # stock indices of the patches in it, rising; a class token's is empty


def patches(taps, stock_indices):
    """Unchanged tokens of some patches."""
    return [Piece(i, PATCH, token, [i]) for i, token in zip(stock_indices, taps.pick(taps.features, stock_indices))]


def thumbnail_pieces(taps, policy):
    """The thumbnail's tokens where it is kept whole; nothing where it is compressed with the rest or dropped."""
    return patches(taps, range(taps.patches ** 2)) if policy == "keep" else []


def assemble(taps, pieces, newlines="rows"):
    """Pieces -> tokens (N, C), kind (N,), place (N,), origins: scanline order (rising place), newlines by policy.

    Order: [class token of the thumbnail] [thumbnail] [map, row by row, a newline after a row] [class tokens of the tiles]."""
    first, line = taps.patches ** 2, taps.width + 1
    held = {(p.place - first) // line for p in pieces if first <= p.place < taps.stock}
    rows = {"rows": held, "all": range(taps.height), "none": []}[newlines]
    pieces = pieces + [Piece(first + y * line + taps.width, NEWLINE, taps.newline, [first + y * line + taps.width]) for y in rows]
    pieces.sort(key=lambda p: p.place)
    tokens = torch.stack([p.token for p in pieces]) if pieces else taps.features[0, :0]
    return tokens, torch.tensor([p.kind for p in pieces]), torch.tensor([p.place for p in pieces]), [p.origin for p in pieces]


def budget(keep, n):
    """How many of n candidates a budget keeps: at least one of some, none of none."""
    if "ratio" in keep:
        return min(n, max(1, math.ceil(keep["ratio"] * n - 1e-9)))
    return min(n, max(1, keep["count"]))


def best(scores, k):
    """Positions of the k largest, rising; equal scores: the lower position."""
    return torch.sort(scores, descending=True, stable=True).indices[:k].sort().values.tolist()


def gap(scores, k):
    """How far the worst kept score is above the best dropped one; infinity where nothing is dropped."""
    ranked = scores.double().sort(descending=True).values
    return float(ranked[k - 1] - ranked[k]) if 0 < k < len(ranked) else math.inf


def by_score(taps, scores, keep, thumbnail):
    """In every tile the candidates with the largest scores (T, P*P) -> kept stock indices, notes."""
    kept, margins, index, values = [], [], [], []
    for _, members in taps.per_tile(thumbnail):
        s = taps.pick(scores, members)
        k = budget(keep, len(members))
        kept += [members[j] for j in best(s, k)]
        margins.append(gap(s, k))
        index, values = index + members, values + [s]
    order = torch.tensor(index).argsort() if index else torch.zeros(0, dtype=torch.long)
    return sorted(kept), {"candidates": torch.tensor(sorted(index), dtype=torch.long), "margin": torch.tensor([min(margins, default=math.inf)]),
                          "scores": torch.cat(values)[order] if values else torch.zeros(0)}


# ---------------------------------------------------------------- before the language model

def stock(taps, cfg):
    """LLaVA-NeXT's own sequence: every patch, a newline after every row, of an empty map's rows too."""
    return patches(taps, taps.candidates()), {}


def fastervlm(taps, cfg):
    """FasterVLM (arXiv 2412.01818v1; Theia-4869/FasterVLM @f5d5f12): in every tile the patches that the class token attends to most.

        s_t[n] = mean_h A_h[class, n] in the tower layer whose output are the features (22 of 24)

    The original takes a count per tile (29 of 576, five tiles, in its README's example for LLaVA-NeXT) and keeps raster order.
    Our choice: a ratio, so that a tile half in the padding gets half the tokens. The rest is the text at the head of this file.

    | s of one tile        | keep    | kept                                |
    | .20 .25 .20 .25 .10  | count 2 | 1, 3                                |
    | .20 .25 .20 .25 .10  | count 3 | 0, 1, 3 (0 and 2 are equal)         |
    | .20 .25 .20 .25 .10  | ratio .5| 0, 1, 3 (2.5 rounds up)             |
    """
    kept, notes = by_score(taps, taps.attention[taps.feature_layer], cfg["keep"], cfg["thumbnail"])
    return patches(taps, kept), notes | {"kept": torch.tensor(kept)}


def spaced(items, c):
    """Every max(1, floor(n / c))-th of n items from the first on, c of them (the end of the list may stay unsampled, as in the original).

    | 0 2 3 4, c 2 | 0 3 |   | 0 1 2 3 4 5 6 7 8 9, c 4 | 0 2 4 6 |   | 0 1 2 3 4, c 3 | 0 1 2 |
    """
    return items[::max(1, len(items) // c)][:c]


def visionzip_merge(hidden, keys, targets, rest, how="add_mean"):
    """Contextual tokens: `rest` merges into the `targets` it resembles most.
    hidden (n, D), keys (n, d) -> (len(targets), D), each one's target, the least lead of a target over the next.

        a(j) = argmax_t <k_j / |k_j|, k_t / |k_t|>  (equal: the earlier target),   z_t = h_t + mean_{j: a(j) = t} h_j

    "add_mean" is the repository's: the target plus the mean of what joins it (the sum of two means, about twice as long as a patch);
    "mean" averages the target and all that joins it (what the paper's word "merge" suggests). Nothing joins: z_t = h_t in both.

    | index  | 0     | 2     | 3     | 4     |   targets 0, 3; k_2 -> (.6, .8), k_4 -> (.894, .447)
    | key    | (1,0) | (3,4) | (0,2) | (2,1) |   cos to 0: .6, .894; cos to 3: .8, .447 -> 2 joins 3, 4 joins 0
    | hidden | 1     | 3     | 4     | 5     |   add_mean: z_0 = 1 + 5 = 6, z_3 = 4 + 3 = 7;  mean: z_0 = 3, z_3 = 3.5
    """
    unit = keys / keys.norm(dim=-1, keepdim=True).clamp_min(1e-12)
    likeness = unit[rest] @ unit[targets].T
    join, out = likeness.argmax(-1) if len(rest) else torch.zeros(0, dtype=torch.long), []
    two = likeness.topk(2).values if len(rest) and len(targets) > 1 else torch.tensor([[math.inf, 0.0]])
    for t, target in enumerate(targets):
        joined = hidden[[r for r, j in zip(rest, join.tolist()) if j == t]]
        if how == "mean":
            out.append(torch.cat([hidden[target][None], joined]).mean(0))
        else:
            out.append(hidden[target] + joined.mean(0) if len(joined) else hidden[target])
    return torch.stack(out), join, float((two[:, 0] - two[:, 1]).min())


def visionzip(taps, cfg):
    """VisionZip (arXiv 2412.04467; dvlab-research/VisionZip @3151f6d): dominant tokens by class attention, the others merged.

    For every tile: the class token itself (`class_token`; a count of dominant tokens includes it, as in the original, a ratio does not);
    the top `dominant` patches of sum_h A_h[class, .] in the feature layer; of the n others, in raster order, every max(1, floor(n / c))-th is
    a target, the first c of them (`spaced`); each remaining patch merges into the target whose key it resembles most (keys: W_k LN1(x) + b_k of the
    same layer, mean over heads).
    Merging is in the tower's space; all tokens then pass the projector (so the order of merging and projecting matters: it is not linear).
    Original settings on LLaVA-NeXT, per tile: 108 + 20, 54 + 10, 27 + 5 (LightCompress configs).

    Our choice: LLaVA-NeXT's order in the repository is thumbnail (class, dominant, contextual), the map's dominant tokens in scanline,
    then the tiles' class tokens, then the tiles' contextual tokens, no newline. Here a contextual token is at its target's patch, and
    class tokens first (thumbnail) and last (tiles). `class_token: false`: as many patches as `dominant` says.
    A pitfall: stock LLaVA-NeXT never shows its projector a class token.

    | one tile, s = .1 .5 .1 .2 .1, dominant 1 (no class token), contextual 2 | patch 1; others 0 2 3 4, step 2, targets 0 and 3 |
    | with the table of visionzip_merge                                      | tokens 0: {0,4} merged, 1, 3: {2,3} merged       |
    """
    pieces, dominant_all, notes = [], [], by_score(taps, taps.attention[taps.feature_layer], {"ratio": 1.0}, cfg["thumbnail"])[1]
    for tile, members in taps.per_tile(cfg["thumbnail"]):
        n = len(members)
        scores = taps.pick(taps.attention[taps.feature_layer], members)
        wanted = budget(cfg["dominant"], n) - (1 if cfg["class_token"] and "count" in cfg["dominant"] else 0)
        dominant = best(scores, wanted)
        others = [j for j in range(n) if j not in set(dominant)]
        c = cfg["contextual"]
        c = min(len(others), math.ceil(c["ratio"] * n - 1e-9) if "ratio" in c else c["count"])
        notes["margin"] = torch.minimum(notes["margin"], torch.tensor([gap(scores, wanted)]))
        if cfg["class_token"]:
            place = -1 if tile == 0 else taps.stock + tile - 1
            pieces.append(Piece(place, CLASS, taps.project(taps.class_hidden[tile]), []))
        pieces += patches(taps, [members[j] for j in dominant])
        dominant_all += [members[j] for j in dominant]
        if c:
            targets = spaced(others, c)
            rest = [j for j in others if j not in set(targets)]
            merged, join, ahead = visionzip_merge(taps.pick(taps.hidden, members), taps.pick(taps.keys, members), targets, rest, cfg["merge"])
            notes["margin"] = torch.minimum(notes["margin"], torch.tensor([ahead]))
            for t, (target, token) in enumerate(zip(targets, merged)):
                origin = sorted([members[target]] + [members[r] for r, j in zip(rest, join.tolist()) if j == t])
                pieces.append(Piece(members[target], MERGED, taps.project(token), origin))
    return pieces, notes | {"kept": torch.tensor(sorted(dominant_all), dtype=torch.long)}


def hired_budgets(mask, sizes, total, rows, cols, thumbnail_region):
    """Tokens for every tile, by how many of the thumbnail's salient patches are in it.

        b_t = min(n_t, floor(total * m_t / sum m)),  m_t = salient thumbnail patches whose centre is in tile t, n_t its candidates

    | m = 4 2 1 1, total 20, n = 16 each | b = 10 5 2 2: one token is lost to rounding, as in the original |
    | m = 6 2 0 0, total 30, n = 16 each | b = 16 7 0 0: what is cut at n is lost, as in the original      |
    """
    counts = [sum(1 for i in mask if thumbnail_region[i] == t) for t in range(rows * cols)]
    if not sum(counts):
        counts = sizes                                                       # our choice: nothing salient, share by area
    return [min(n, total * m // max(1, sum(counts))) for m, n in zip(counts, sizes)]


def hired_region(taps, how):
    """For every thumbnail patch the tile (0-based, raster) that shows the same part of the picture.

    "spatial" (our choice): patch (y, x)'s centre, scaled to the unpadded map and moved by the padding:
    column ((2x+1) Wx + 2 P left) // (2 P P), row likewise. "strips": what the repository computes: it reshapes the P*P raster into
    (rows, cols, P*P / tiles), which cuts the thumbnail into horizontal strips, not into the tiles' quarters."""
    p, tiles = taps.patches, taps.rows * taps.cols
    if how == "strips":
        return [min(tiles - 1, i // (p * p // tiles)) for i in range(p * p)]
    at = lambda v, size, pad: ((2 * v + 1) * size + 2 * p * pad) // (2 * p * p)
    return [at(i // p, taps.height, taps.top) * taps.cols + at(i % p, taps.width, taps.left) for i in range(p * p)]


def hired(taps, cfg):
    """HiRED (arXiv 2408.10945; hasanar1f/HiRED @502d6dd): a fixed budget, shared among the tiles by what the thumbnail's early attention finds.

        B = floor(rate * n),  n all candidates;  thumbnail: min(floor(alpha * B), P*P);  tiles together: B - that
        salient = the floor((1 - alpha) * P*P) thumbnail patches with the most class attention in tower layer 0 (`budget_layer`)
        tile t: hired_budgets;  in each tile the patches with the most class attention in the feature layer

    rate >= 1 keeps everything (the original switches itself off there). Original: rate .2, alpha .5, layers 0 and 22, n = 576 T with the
    padding in it, newlines off. Our choice: n counts no padding; a tile whose budget is 0 keeps nothing; `budget_map` (see hired_region).
    The settings have no `keep`, and the thumbnail takes part by alpha, so `thumbnail` must be "compress".
    """
    p, late, early = taps.patches, taps.attention[taps.feature_layer], taps.attention[cfg["budget_layer"]]
    if cfg["thumbnail"] != "compress":
        raise ValueError("hired shares its budget with the thumbnail: it can only be compressed")
    tiles = dict(taps.per_tile())
    notes = by_score(taps, late, {"ratio": 1.0}, "compress")[1]
    n = sum(map(len, tiles.values()))
    if cfg["rate"] >= 1:
        return patches(taps, taps.candidates()), notes | {"kept": torch.tensor(taps.candidates())}
    total = int(n * cfg["rate"])
    thumbnail = min(int(total * cfg["alpha"]), p * p)
    salient = best(early[0], int(p * p * (1 - cfg["alpha"])))
    sizes = [len(tiles.get(t + 1, [])) for t in range(taps.rows * taps.cols)]
    shares = hired_budgets(salient, sizes, min(total - thumbnail, sum(sizes)), taps.rows, taps.cols, hired_region(taps, cfg["budget_map"]))
    kept, margins = [], [gap(early[0], len(salient))]
    for tile, k in enumerate([max(1, thumbnail)] + shares):
        if k:
            scores = taps.pick(late, tiles[tile])
            kept += [tiles[tile][j] for j in best(scores, k)]
            margins.append(gap(scores, k))
    return patches(taps, sorted(kept)), notes | {"kept": torch.tensor(sorted(kept)), "salient": torch.tensor(salient, dtype=torch.long),
                                                 "tile_budgets": torch.tensor([max(1, thumbnail)] + shares), "margin": torch.tensor([min(margins)])}


def unit_rows(x):
    """Rows divided by their length, in float64; a row of zeros stays one."""
    x = x.double()
    return x / x.norm(dim=-1, keepdim=True).clamp_min(1e-12)


def lead(value, pick, taken):
    """How far a pick is above the next lower value that is left; infinity where there is none. Exact ties, which the index decides,
    do not count: they are exact on every machine that computes d(i, j) and d(j, i) alike."""
    lower = [v for i, v in enumerate(value.tolist()) if v < float(value[pick]) and i not in taken]
    return float(value[pick]) - max(lower) if lower else math.inf


def max_min(x, k):
    """Greedy max-min diversity: k rows of x (n, C) in the order of picking, and each pick's lead.

        d(i, j) = 1 - cos(x_i, x_j);  first: argmax_i min_{j != i} d(i, j);  then: argmax_{i not in S} min_{j in S} d(i, j);  equal: the lower index

    Only one running minimum (n,) is needed after the first pick; the first needs all pairs. k * n * C multiplications.
    The first pick often ties exactly: two patches, each the other's nearest. So the products must be symmetric to the bit.
    One token alone: it is the pick.

    | x = (1,0) (.8,.6) (0,1) (-1,0)                        |                    |
    | nearest other: .2 .2 .4 1                             | first pick 3       |
    | to {3}: 2 1.8 1 -                                     | 0                  |
    | to {3, 0}: - .2 1 -                                   | 2; then 1          |
    """
    x = unit_rows(x)
    distance, n = 1 - (x @ x.T + (x @ x.T).T) / 2, len(x)
    running = distance.masked_fill(torch.eye(n, dtype=torch.bool), math.inf).amin(-1) if n > 1 else torch.zeros(n, dtype=torch.double)
    order, leads = [], []
    for step in range(k):
        value = running.clone()
        value[order] = -math.inf
        pick = int(value.argmax())
        leads.append(lead(value, pick, order))
        running = torch.minimum(running, distance[pick]) if step else distance[pick]
        order.append(pick)
    return order, leads


def divprune(taps, cfg):
    """DivPrune (arXiv 2503.02175; only its published idea): the subset whose closest pair is as far apart as a greedy choice can make it.

    max_min over projected features. The original picks among all visual tokens of the sequence at once, thumbnail, map and newlines, and
    counts round(ratio * tokens). Our choice: patches only (newlines are all alike, so the original keeps one at most), scope "image"
    (all at once) or "tile"; with `thumbnail: keep` the thumbnail is neither candidate nor reference.
    No attention, no class token: works with SigLIP. Kept tokens in raster order.
    """
    return spread(taps, cfg, lambda x, _, k: max_min(x, k))


def fast_map(x, relevance, k, eps=1e-5):
    """Greedy MAP of a determinantal point process with kernel L = r_i cos(x_i, x_j) r_j: k picks in order, and each one's lead.

        d2_i = L_ii;  repeat: j = argmax_{i not in S} d2_i;  e_i = (L_ji - sum_m c_m,j c_m,i) / sqrt(d2_j);  d2_i -= e_i^2;  c_new = e

    d2_i is what of token i the chosen ones do not explain (Chen et al., NeurIPS 2018). Equal: the lower index, so with r = 1 the first pick is
    index 0. Once no d2 exceeds eps * max L_ii the rest is noise: the remaining picks go by rising index (our choice; margin 0).
    L_ii is set to r_i^2 exactly. k * n * (C + k) multiplications, k * n values of state.

    | x = (1,0) (.8,.6) (0,1) (-1,0), r = 1 | d2 = 1 1 1 1 -> 0; d2 = - .36 1 0 -> 2; d2 = - 0 - 0 -> exhausted: 1, 3 |
    | the same, r = .5 1 1 1                | d2 = .25 1 1 1 -> 1; d2 = .09 - .64 .36 -> 2; 0 -> exhausted: 0, 3     |
    """
    x, r = unit_rows(x), relevance.double()
    kernel = r[:, None] * (x @ x.T) * r[None]
    kernel.diagonal().copy_(r * r)
    left, chosen, rows, leads = kernel.diagonal().clone(), [], [], []
    floor = eps * float(left.max()) if len(x) else 0.0
    for _ in range(k):
        value = left.clone()
        value[chosen] = -math.inf
        pick = int(value.argmax())
        if float(value[pick]) <= floor:
            rest = [i for i in range(len(x)) if i not in set(chosen)][:k - len(chosen)]
            return chosen + rest, leads + [0.0] * len(rest)
        leads.append(lead(value, pick, chosen))
        row = kernel[pick] - sum((c[pick] * c for c in rows), torch.zeros_like(left))
        row = row / left[pick].sqrt()
        rows.append(row)
        left = left - row * row
        chosen.append(pick)
    return chosen, leads


def cdpruner(taps, cfg):
    """CDPruner without its text (arXiv 2506.10967; Theia-4869/CDPruner @9541616): diverse patches by a determinantal point process.

    fast_map over projected features, in every tile, kept in raster order. The original's relevance r is min-max normalised over all tiles of
    (minus) the mean cosine between CLIP's patch and text embeddings; LLaVA checkpoints hold no text tower, so r = 1 ("none").
    `relevance: cls` (our extension): r = (a - min a + 1e-6) / (max a - min a) over all candidates, a the class attention as in fastervlm.
    `scope: image` picks over all tiles at once. Set `keep` low: k * n values of state.
    """
    return spread(taps, cfg, fast_map)


def spread(taps, cfg, choose):
    """What DivPrune and CDPruner share: groups of candidates, a greedy choice in each, the order of the picks for the trace."""
    members = taps.candidates(cfg["thumbnail"])
    groups = [(0, members)] if cfg["scope"] == "image" and members else taps.per_tile(cfg["thumbnail"])
    relevance = torch.ones(taps.stock)
    if cfg.get("relevance") == "cls":
        a = taps.pick(taps.attention[taps.feature_layer], members)
        relevance[members] = (a - a.min() + 1e-6) / (a.max() - a.min()).clamp_min(1e-12)
    order, margins = [], []
    for _, group in groups:
        picks, leads = choose(taps.pick(taps.features, group), relevance[group], budget(cfg["keep"], len(group)))
        order += [group[j] for j in picks]
        margins += leads
    return patches(taps, sorted(order)), {"kept": torch.tensor(sorted(order), dtype=torch.long), "pick_order": torch.tensor(order, dtype=torch.long),
                                          "pick_margin": torch.tensor(margins, dtype=torch.double), "margin": torch.tensor([min(margins, default=math.inf)])}


def focus_heuristic(taps, cfg):
    """FocusLLaVA's own heuristic baseline (arXiv 2411.14228, Suppl. 6, Tab. 7): the map's patches most like the picture as a whole.

        A_i = X_g^T X_i (P*P x 16) for every 4x4 block;  score = mean over the P*P thumbnail tokens;  the top p percent of all scores

    = <x_t, mean_n X_g[n]> for every patch: one product with the mean thumbnail token; blocks have no effect. Raw inner products of
    projected tokens. Our choice: divided by sqrt(C), which changes no order and keeps f16 in range; equal scores by stock index, not by block;
    the thumbnail is kept whole, as with the paper's samplers here. Tab. 7: keep 1, .8, .6, .4.

    | X_g = (1,0) (0,1) (1,3): mean (2/3, 4/3) | x = (3,0) (0,3) (-1,1) (1,1) | <x, mean> = 2, 4, 2/3, 2; keep .6: three of four: 0, 1, 3 |
    """
    mean = taps.features[0].mean(0)
    scores = taps.features @ mean / math.sqrt(len(mean))
    if cfg["thumbnail"] == "compress":
        raise ValueError("focus_heuristic scores against the thumbnail: keep it or drop it")
    members = taps.candidates(cfg["thumbnail"])
    s = taps.pick(scores, members)
    k = budget(cfg["keep"], len(members)) if members else 0
    kept = [members[j] for j in best(s, k)]
    return patches(taps, kept), {"candidates": torch.tensor(members, dtype=torch.long), "scores": s, "margin": torch.tensor([gap(s, k)]),
                                 "kept": torch.tensor(kept, dtype=torch.long)}


def split_mix(seed, i):
    """The i-th (0-based) output of SplitMix64 from `seed`, its top 24 bits as a number in [0, 1), exact in float32.

    | seed 0 | i = 0: .8833108 (e220a8...) | i = 1: .43152797 (6e789e...) | i = 2: .02643377 (06c45d...) |
    """
    mask = (1 << 64) - 1
    z = (seed + (i + 1) * 0x9E3779B97F4A7C15) & mask
    z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ z >> 27) * 0x94D049BB133111EB) & mask
    return ((z ^ z >> 31) >> 40) / (1 << 24)


def random(taps, cfg):
    """Baseline: in every tile a random choice. score of stock index i = split_mix(seed, i), the largest are kept: the same on every machine."""
    scores, cells = torch.zeros(taps.features.shape[:2]), taps.cells
    for i in taps.candidates():
        scores[cells[i]] = split_mix(cfg["seed"], i)
    kept, notes = by_score(taps, scores, cfg["keep"], cfg["thumbnail"])
    return patches(taps, kept), notes | {"kept": torch.tensor(kept, dtype=torch.long)}


def lattice(size, step):
    """Every step-th of `size`, from floor((step - 1) / 2) on; the last one where that is beyond.

    | size 8, step 2: 0 2 4 6 | size 8, step 3: 1 4 7 | size 2, step 8: 1 |
    """
    return list(range(min((step - 1) // 2, size - 1), size, step)) if size else []


def stride(taps, cfg):
    """Baseline: a lattice, every `stride` = (rows, columns)-th patch of the thumbnail and of the map (not of each tile)."""
    (sy, sx), p, line = cfg["stride"], taps.patches, taps.width + 1
    kept = [y * p + x for y in lattice(p, sy) for x in lattice(p, sx)] if cfg["thumbnail"] == "compress" else []
    kept += [p * p + y * line + x for y in lattice(taps.height, sy) for x in lattice(taps.width, sx)]
    return patches(taps, kept), {"kept": torch.tensor(kept, dtype=torch.long)}


BEFORE = {f.__name__: f for f in (stock, fastervlm, visionzip, hired, divprune, cdpruner, focus_heuristic, random, stride)}


def compress(taps, settings):
    """settings {"method": name, ...} -> visual tokens (N, C) and the trace."""
    cfg = {"newlines": "rows", "thumbnail": "compress", **DEFAULTS[settings["method"]], **settings}
    pieces, notes = BEFORE[cfg["method"]](taps, cfg)
    pieces = pieces + thumbnail_pieces(taps, cfg["thumbnail"])
    if not pieces:                                         # the map is empty and the thumbnail would be dropped: it is kept
        pieces = thumbnail_pieces(taps, "keep")
    tokens, kind, place, origins = assemble(taps, pieces, cfg["newlines"])
    offsets = torch.tensor([0] + [len(o) for o in origins]).cumsum(0)
    return tokens, notes | {"token_kind": kind, "token_place": place, "origin_offsets": offsets,
                            "origin_index": torch.tensor([i for o in origins for i in o], dtype=torch.long)}


# ---------------------------------------------------------------- inside the language model

def attention_row(focus, layer, hidden, positions):
    """Attention of the last token in one decoder layer, with rotary positions, mean over query heads.  hidden (t, C) -> (t,), sums to 1.

        a = mean_h softmax_j(q_last,h . k_j,h' / sqrt(d)),  q = rope(W_q norm(x)),  k = rope(W_k norm(x));  keys repeated for GQA

    The last token sees all, so no mask is needed: one row, O(heads t d), beside an attention that may stay fused.

    | 2 heads, keys: 1 text, 3 visual, 1 text | .2 .1 .4 .1 .2 / .1 .5 .2 .1 .1 | visual part of the mean: .30 .30 .10 |
    """
    attn, d = layer.self_attn, layer.self_attn.head_dim
    x = layer.input_layernorm(hidden)
    q = focus.rope(attn.q_proj(x[-1:]).view(1, -1, d).transpose(0, 1), positions[-1:])
    k = focus.rope(attn.k_proj(x).view(len(x), -1, d).transpose(0, 1), positions)
    scores = q @ k.repeat_interleave(q.shape[0] // k.shape[0], 0).transpose(-1, -2) / math.sqrt(d)
    return scores.softmax(-1)[:, 0].mean(0)


def stages(method, cfg, depth, focus_cfg):
    """The prunings of a method: [(layer, rule)], each before the 0-based decoder layer `layer`; all layers below have seen every token.

    fastv        FastV (arXiv 2403.06764; pkunlp-icler/FastV @d165972). One stage at `layer` = K >= 1 (2 or 3): score = attention_row of layer
                 K - 1 at the visual tokens, i.e. the last prompt token's row of the attention that layer has just computed; keep a share
                 of 1 - R (.5). Survivors keep their position ids, as in the original's in-place version.
    pyramiddrop  PyramidDrop (arXiv 2410.17247; Cooperx521/PyramidDrop @6444f30). Stages before layers 8, 16, 24 of 32 (default: depth * s // 4):
                 score = attention_row of that very layer, from its input; keep floor(ratio * n) of the n visual tokens that there were AT FIRST
                 (.5, .25, .125: shares of the whole, not of the survivors), at least one.
                 Our choice: positions "original"; the original renumbers 0, 1, 2, ... from each stage on ("renumber"), answer tokens too.
    text_guided  FocusLLaVA's text-guided sampler, untrained (Tab. 6 "Direct": gamma .9). focus_reference.importance on layer `layer`
                 (default: the config's text_layer, 8), no rotary positions.

    In all of them everything in the picture's place is visual: thumbnail, map, newlines, merged and class tokens. The last prompt token is
    the last of the chat template, not of the question. A new question computes the scores again, from the caches of the layers below.

    | pyramiddrop, n = 10 | 5, 2, 1 tokens from the three stages on; n = 7: 3, 1, 1 (floor .875 = 0: one stays) |
    | fastv, n = 7, keep .5 | 4 (3.5 rounds up, our rule)                                                        |
    """
    if method == "fastv":
        if not 1 <= cfg["layer"] < depth:
            raise ValueError(f"fastv: layer must be in 1..{depth - 1}, got {cfg['layer']}")
        return [(cfg["layer"], "row_below")]
    if method == "pyramiddrop":
        layers = cfg["layers"] or [depth * s // (len(cfg["ratios"]) + 1) for s in range(1, len(cfg["ratios"]) + 1)]
        return [(layer, "row_own") for layer in layers]
    return [(cfg["layer"] if cfg["layer"] is not None else focus_cfg["text_layer"], "text")]


@torch.no_grad()
def answer(focus, visual, prompt, stock_tokens, inside=None, new_tokens=4):
    """Visual tokens (N, C) and a prompt -> trace of a greedy answer, pruned inside the model where `inside` says so."""
    method = inside and inside["method"]
    cfg = {"positions": "original", **(INSIDE[method] if method else {}), **(inside or {})}
    layers, ids = focus.llm.layers, focus.prompt_ids(prompt)
    at = ids.index(focus.model.config.image_token_id)
    embed = lambda i: focus.llm.embed_tokens(torch.tensor(i, dtype=torch.long))
    hidden = torch.cat([embed(ids[:at]), visual, embed(ids[at + 1:])])
    n, total, alive = len(visual), len(hidden), torch.arange(len(visual))
    positions, below = torch.arange(total), None
    todo = dict()
    for s, (layer, rule) in enumerate(stages(method, cfg, len(layers), focus.cfg) if method else []):
        todo[layer] = (s, rule)
    trace, caches, counts, nexts = {}, [None] * len(layers), [], []
    for i, layer in enumerate(layers):
        if i in todo:
            s, rule = todo[i]
            m = len(alive)
            if rule == "row_below":
                scores = attention_row(focus, layers[i - 1], *below)[at:at + m]
            elif rule == "row_own":
                scores = attention_row(focus, layer, hidden, positions)[at:at + m]
            else:
                scores = focus.text_scores(layer, hidden, positions, torch.arange(at, at + m), at + m)
            if rule == "row_own":
                kept = torch.tensor(best(scores, max(1, int(n * cfg["ratios"][s]))))
            elif "gamma" in cfg["keep"]:
                kept = top_k(scores, cfg["keep"]["gamma"])
            else:
                kept = torch.tensor(best(scores, budget(cfg["keep"], m)))
            trace |= {f"stage{s}.layer": torch.tensor([i]), f"stage{s}.scores": scores, f"stage{s}.kept": alive[kept],
                      f"stage{s}.margin": torch.tensor([gap(scores, len(kept))])}
            alive = alive[kept]
            stay = torch.cat([torch.arange(at), at + kept, torch.arange(at + m, len(hidden))])
            hidden = hidden[stay]
            positions = torch.arange(len(stay)) if cfg["positions"] == "renumber" else positions[stay]
        counts.append(len(alive))
        nexts.append(int(positions[-1]) + 1)
        below = (hidden, positions)
        hidden, caches[i] = focus.attend(layer, hidden, positions, caches[i])
    logits = focus.model.lm_head(focus.llm.norm(hidden[-1]))
    trace |= {"visual_tokens": visual, "kept_visual": alive, "layer_visual": torch.tensor(counts), "prefill_logits": logits,
              "input_ids": torch.tensor(ids), "token_counts": torch.tensor([stock_tokens, n, len(alive)]),
              "equivalent_share": torch.tensor([sum(counts) / (len(layers) * stock_tokens)])}
    out, steps = [], [logits]
    ends = focus.model.generation_config.eos_token_id
    ends = set(ends if isinstance(ends, list) else [ends])
    for step in range(new_tokens):
        out.append(int(logits.masked_fill(~focus.has_token, float("-inf")).argmax()))
        if out[-1] in ends or step == new_tokens - 1:
            break
        hidden = embed([out[-1]])
        for i, layer in enumerate(layers):
            hidden, caches[i] = focus.attend(layer, hidden, torch.tensor([nexts[i] + step]), caches[i])
        logits = focus.model.lm_head(focus.llm.norm(hidden[-1]))
        steps.append(logits)
    return trace | {"answer_ids": torch.tensor(out), "step_logits": torch.stack(steps)}


def run(focus, image, prompt, before=None, inside=None, new_tokens=4):
    """Picture and prompt -> everything that is compared: taps, what was kept and why, tokens, logits, counts."""
    tap, pixels = taps(focus, image)
    with torch.no_grad():
        visual, notes = compress(tap, before or {"method": "stock"})
    trace = {"pixel_values": pixels, "tap.features": tap.features, "tap.hidden": tap.hidden, "tap.class_hidden": tap.class_hidden,
             "tap.keys": tap.keys, "tap.grid": torch.tensor([tap.patches, tap.rows, tap.cols, tap.top, tap.left, tap.height, tap.width])}
    trace |= {f"tap.attention.{layer}": a for layer, a in tap.attention.items()}
    return trace | notes | answer(focus, visual, prompt, tap.stock, inside, new_tokens)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model"), parser.add_argument("image"), parser.add_argument("prompt")
    parser.add_argument("--before", type=json.loads), parser.add_argument("--inside", type=json.loads)
    parser.add_argument("--new", type=int, default=4), parser.add_argument("--out")
    args = parser.parse_args()
    trace = run(Focus(args.model), Image.open(args.image).convert("RGB"), args.prompt, args.before, args.inside, args.new)
    for name, value in trace.items():
        print(f"{name:17} {tuple(value.shape)!s:18} {value.dtype}", value.tolist() if value.numel() <= 12 else "")
    if args.out:
        save_file({k: v.detach().contiguous() for k, v in trace.items()}, args.out)


if __name__ == "__main__":
    main()
