#!/usr/bin/env python3
"""Checks that compressors_reference.py and meteor_reference.py must pass: tables computed by hand, and what holds on any picture.

    check_compressors.py [--fixtures DIR]
"""
import argparse
import math
from pathlib import Path

import torch
from transformers.utils import logging

import compressors_reference as cr
import meteor_reference as mr
from focus_reference import Focus, top_k
from make_compressed import PROMPT, SIZES
from make_fixtures import picture

MODELS = {                                    # checkpoint -> pictures
    "tiny-0": ["wide", "square", "thin", "needle"], "seven-1": ["tall", "small"], "wide-0": ["odd", "wide"]}


# ---------------------------------------------------------------- checks: vectors computed by hand, as in the docstrings

def close(got, want, tolerance=1e-6):
    got, want = torch.as_tensor(got).double(), torch.as_tensor(want).double()
    assert got.shape == want.shape and bool((got - want).abs().max() <= tolerance), f"expected {want.tolist()}, got {got.tolist()}"


def by_hand():
    T = torch.tensor
    s = T([.20, .25, .20, .25, .10])
    assert [cr.best(s, 2), cr.best(s, 3), cr.best(s, cr.budget({"ratio": .5}, 5))] == [[1, 3], [0, 1, 3], [0, 1, 3]]
    assert [cr.budget({"ratio": r}, n) for r, n in [(.07, 100), (.5, 5), (.001, 5), (1, 5), (1.0, 0)]] == [7, 3, 1, 5, 0]
    assert [cr.budget({"count": c}, n) for c, n in [(3, 5), (9, 5), (0, 5), (3, 0)]] == [3, 5, 1, 0]
    rows = T([[.1, .4, .2, .3], [.3, .2, .4, .1]])
    close(rows[:, 1:].mean(0), [.3, .3, .2])
    assert [cr.spaced([0, 2, 3, 4], 2), cr.spaced(list(range(10)), 4), cr.spaced(list(range(5)), 3)] == [[0, 3], [0, 2, 4, 6], [0, 1, 2]]
    keys, hidden = T([[1., 0], [9, 9], [3, 4], [0, 2], [2, 1]]), T([[1.], [2], [3], [4], [5]])
    for how, want in [("add_mean", [[6.], [7]]), ("mean", [[3.], [3.5]])]:
        z, join, ahead = cr.visionzip_merge(hidden, keys, [0, 3], [2, 4], how)
        close(z, want), close(join, [1, 0]), close(ahead, .2)
    assert cr.hired_budgets([0, 1, 2, 3, 4, 5, 6, 7], [16] * 4, 20, 2, 2, [0, 0, 0, 0, 1, 1, 2, 3]) == [10, 5, 2, 2]
    assert cr.hired_budgets([0, 1, 2, 3, 4, 5, 6, 7], [16] * 4, 30, 2, 2, [0, 0, 0, 0, 0, 0, 1, 1]) == [16, 7, 0, 0]
    x = T([[1, 0], [.8, .6], [0, 1], [-1, 0]])
    assert cr.max_min(x, 4)[0] == [3, 0, 2, 1]
    assert cr.fast_map(x, torch.ones(4), 4)[0] == [0, 2, 1, 3] and cr.fast_map(x, T([.5, 1, 1, 1]), 4)[0] == [1, 2, 0, 3]
    close(T([[3., 0], [0, 3], [-1, 1], [1, 1]]) @ T([[1., 0], [0, 1], [1, 3]]).mean(0), [2, 4, 2 / 3, 2])
    assert cr.best(T([2., 4, 2 / 3, 2]), cr.budget({"ratio": .6}, 4)) == [0, 1, 3]
    close(T([cr.split_mix(0, i) for i in range(3)]), [.8833108, .43152797, .02643377], 1e-7)
    assert [cr.lattice(8, 2), cr.lattice(8, 3), cr.lattice(2, 8), cr.lattice(0, 2)] == [[0, 2, 4, 6], [1, 4, 7], [1], []]
    close(T([[.2, .1, .4, .1, .2], [.1, .5, .2, .1, .1]]).mean(0)[1:4], [.3, .3, .1])
    assert [[max(1, int(n * r)) for r in (.5, .25, .125)] for n in (10, 7)] == [[5, 2, 1], [3, 1, 1]]
    a = T([[[.5, .3, .2]], [[.1, .7, .2]]])                                       # FocusLLaVA's: the max over heads, the mean over text
    close(a.amax(0).mean(0), [.5, .7, .2])
    assert top_k(T([.5, .7, .2]), .85).tolist() == [0, 1] and top_k(T([.5, .7, .2]), .86).tolist() == [0, 1, 2]

    ln2, one = T([[math.log(2)]]), torch.ones(1, 1)
    close([float(v) for v in mr.discretise(ln2, -one, one, one)], [.5, .693147], 1e-6)
    close([float(v) for v in mr.discretise(ln2, -one, one, one, "zoh")], [.5, .5], 1e-6)
    half = torch.full((3, 1, 1), .5)
    close(mr.scan_sequential(half, torch.ones(3, 1, 1)).flatten(), [1, 1.5, 1.75])
    close(mr.scan_sequential(T([.5, 0, .5]).view(3, 1, 1), torch.ones(3, 1, 1)).flatten(), [1, 1, 1.5])
    close(mr.then((.5, 1), (.25, 2)), [.125, 2.25])
    for how, want in [("euler", [.693147, 1.039721, 1.213008]), ("zoh", [.5, .75, .875])]:
        for scan in (None, mr.scan_sequential, mr.scan_blelloch):
            ones = torch.ones(3, 1)
            close(mr.selective_scan(ones, ln2.expand(3, 1), -one, ones, ones, torch.zeros(1), how, scan).flatten(), want, 1e-6)
    assert mr.local_order(3, 5, 2) == [0, 1, 5, 6, 2, 3, 7, 8, 4, 9, 10, 11, 12, 13, 14]
    close(mr.causal_conv(T([[1.], [2], [3]]), T([[[.5, .25, 1]]]), 0).flatten(), [1, 2.25, 4])
    close(mr.z_score(T([1., 2, 3])), [-1.224745, 0, 1.224745]), close(mr.z_score(torch.full((3,), .1)), [0, 0, 0])
    for pool, want in [("mean", [.5, .5, .707107]), ("max", [1, 1, .707107])]:
        close(mr.native_expert(T([[1., 0], [0, 2], [1, 1]]), T([[3., 0], [0, 1]]), pool), want)
    v, n = T([.4, .3, .2, .1]), T([0, .2, .1, .3])
    close(mr.combine(v, n, .5, "z_sum"), [0, .447214, -.447214, 0]), close(mr.combine(v, n, .5, "rank_sum"), [-3, -2, -4, -3])
    assert cr.best(mr.combine(v, n, .5, "rank_min"), 2) == [0, 3]
    print("by hand: every table of the docstrings holds")


# ---------------------------------------------------------------- checks: what must hold on any picture

def properties(models):
    hf_worst = share_checks = 0
    for preset, focus in models.items():
        for name in MODELS[preset]:
            image = picture(*SIZES[name], 0)
            tap, pixels = cr.taps(focus, image)
            tower = focus.model.model.vision_tower
            with torch.no_grad():
                rows = tower(pixels, output_attentions=True).attentions
            hf_worst = max([hf_worst] + [float((rows[i][:, :, 0, 1:].mean(1) - a).abs().max()) for i, a in tap.attention.items()])
            check_layout(focus, image, tap)
            check_before(tap)
            share_checks += check_inside(focus, image, tap)
    print(f"properties: hold on 8 pictures; class attention equals transformers' within {hf_worst:.1e}; {share_checks} shares recomputed")
    assert hf_worst < 1e-6


def check_layout(focus, image, tap):
    """All kept = LLaVA-NeXT's own sequence, bit for bit; the stock run equals focus_reference's."""
    own, n = torch.cat(focus.encode(image, vision=False)[0]), tap.patches ** 2
    assert torch.equal(cr.compress(tap, {"method": "stock"})[0], own)
    for settings in [dict(method="fastervlm", keep={"ratio": 1.0}), dict(method="fastervlm", keep={"ratio": 1.0}, thumbnail="keep"),
                     dict(method="visionzip", dominant={"ratio": 1.0}, contextual={"count": 0}, class_token=False),
                     dict(method="hired", rate=1.0), dict(method="random", keep={"count": 10 ** 6}), dict(method="stride", stride=[1, 1]),
                     dict(method="focus_heuristic", keep={"ratio": 1.0}), dict(method="divprune", keep={"ratio": 1.0}),
                     dict(method="cdpruner", keep={"ratio": 1.0})]:
        tokens, notes = cr.compress(tap, settings)
        if tap.height and tap.width:
            assert torch.equal(tokens, own), settings
            assert notes["origin_index"].tolist() == notes["token_place"].tolist() == list(range(tap.stock)), settings
        else:                                                            # an empty map: its rows hold no token, so no newline either (stock has them)
            assert torch.equal(tokens, tap.features[0]), settings
    everything = dict(method="fastervlm", keep={"ratio": 1.0})
    assert len(cr.compress(tap, everything | dict(newlines="none"))[0]) == n + tap.height * tap.width
    assert len(cr.compress(tap, everything | dict(newlines="all"))[0]) == tap.stock
    assert len(cr.compress(tap, everything | dict(thumbnail="drop"))[0]) == (tap.stock - n if tap.height and tap.width else n)
    cells = tap.cells
    assert len(cells) == tap.stock and len(set(cells)) == tap.stock
    tile = lambda v, size, pad: int(((v + .5) / tap.patches * size + pad) // tap.patches)             # of a thumbnail patch's centre
    for i, region in enumerate(cr.hired_region(tap, "spatial")):
        assert region == tile(i // tap.patches, tap.height, tap.top) * tap.cols + tile(i % tap.patches, tap.width, tap.left) < tap.rows * tap.cols
    if tap.height and tap.width:
        region = cr.hired_region(tap, "spatial")
        for t in range(tap.rows * tap.cols):                             # as many thumbnail patches as the tile's share of the map's area
            area = sum(1 for tile, _ in cells if tile == t + 1) / (tap.height * tap.width)
            assert abs(region.count(t) / n - area) <= 2 / tap.patches, (t, region.count(t) / n, area)


def check_before(tap):
    cells, full = tap.cells, {"ratio": 1.0}
    tiles = tap.per_tile()
    assert sorted(i for _, m in tiles for i in m) == [i for i, (t, _) in enumerate(cells) if t >= 0]
    for method in cr.BEFORE:
        if method == "stock":
            continue
        extra = {"dominant": {"count": 12}, "contextual": {"count": 4}} if method == "visionzip" else {}
        for newlines in ("rows", "all", "none"):
            tokens, notes = cr.compress(tap, dict(method=method, newlines=newlines) | extra)
            place, kind = notes["token_place"].tolist(), notes["token_kind"].tolist()
            assert place == sorted(set(place)), (method, "order")
            offsets, index = notes["origin_offsets"].tolist(), notes["origin_index"].tolist()
            origins = [index[a:b] for a, b in zip(offsets, offsets[1:])]
            assert len(origins) == len(tokens) and len(index) == len(set(index)), (method, "each patch in one token at most")
            for p, k, o, token in zip(place, kind, origins, tokens):
                if k in (cr.PATCH, cr.NEWLINE):
                    assert o == [p] and (cells[p][0] < 0) == (k == cr.NEWLINE)
                    assert torch.equal(token, tap.newline if k == cr.NEWLINE else tap.features[cells[p]]), (method, p)
                elif k == cr.MERGED:
                    assert p in o and o == sorted(o) and len({cells[i][0] for i in o}) == 1
                else:
                    assert o == [] and (p == -1 or p >= tap.stock)
            lines = {(p - tap.patches ** 2) // (tap.width + 1) for p, k in zip(place, kind) if k == cr.NEWLINE}
            held = {(p - tap.patches ** 2) // (tap.width + 1) for p, k in zip(place, kind) if k in (cr.PATCH, cr.MERGED) and p >= tap.patches ** 2}
            assert lines == {"rows": held, "all": set(range(tap.height)), "none": set()}[newlines], (method, newlines)
    for method in ("fastervlm", "random", "focus_heuristic"):            # more budget keeps a superset; the counts are the budget's
        last = set()
        for r in (0.02, 0.1, 0.25, 0.5, 0.77, 1.0):
            kept = set(cr.compress(tap, dict(method=method, keep={"ratio": r}))[1]["kept"].tolist())
            groups = [[i for i in tap.candidates("keep")]] if method == "focus_heuristic" else [m for _, m in tiles]
            assert last <= kept and len(kept) == sum(cr.budget({"ratio": r}, len(g)) for g in groups if g), (method, r)
            assert all(len(kept & set(g)) == cr.budget({"ratio": r}, len(g)) for g in groups if g)
            last = kept
    for method, scope in [("divprune", "image"), ("divprune", "tile"), ("cdpruner", "tile"), ("cdpruner", "image")]:
        few, many = (cr.compress(tap, dict(method=method, scope=scope, keep={"count": k}))[1]["pick_order"].tolist() for k in (5, 11))
        groups = [tap.candidates()] if scope == "image" else [m for _, m in tiles]
        for g in groups:
            a, b = [i for i in few if i in set(g)], [i for i in many if i in set(g)]
            assert b[:len(a)] == a, (method, scope, "a longer choice begins with the shorter one")
    check_symmetries(tap)
    zip_settings = dict(method="visionzip", dominant={"count": 12}, contextual={"count": 4}, newlines="none")
    notes = cr.compress(tap, zip_settings)[1]
    assert sorted(notes["origin_index"].tolist()) == tap.candidates(), "visionzip: every patch is in exactly one token"
    assert int((notes["token_kind"] == cr.CLASS).sum()) == len(tiles)
    for t, m in tiles:
        here = sum(1 for p in notes["token_place"].tolist() if 0 <= p < tap.stock and cells[p][0] == t)
        assert here == min(11, len(m)) + min(4, max(0, len(m) - 11))
    for rate in (.1, .2, .5, .9):
        notes = cr.compress(tap, dict(method="hired", rate=rate))[1]
        n, kept, shares = len(tap.candidates()), notes["kept"].tolist(), notes["tile_budgets"].tolist()
        assert len(kept) == sum(shares) <= max(1, int(n * rate)) and [sum(1 for i in kept if cells[i][0] == t) for t in range(len(shares))] == shares
        assert len(kept) > int(n * rate) - tap.rows * tap.cols or any(s == len(dict(tiles).get(t, [])) for t, s in enumerate(shares))
    mean = tap.features[0].mean(0)                                       # the paper's own form of its heuristic, block by block
    by_block = [(tap.features[0] @ tap.features[c]).mean() for c in [cells[i] for i in tap.candidates("keep")]]
    if by_block:
        scores = cr.compress(tap, {"method": "focus_heuristic"})[1]["scores"]
        close(torch.stack(by_block) / math.sqrt(len(mean)) / scores.abs().max(), scores / scores.abs().max(), 1e-6)


def check_symmetries(tap):
    """Cosine methods see neither a rotation of the space nor the tokens' lengths; a permutation of the patches permutes the choice."""
    rng = torch.Generator().manual_seed(5)
    members = dict(tap.per_tile())[0]
    x = tap.pick(tap.features, members).double()
    c, n, k = x.shape[1], len(members), 12
    turn = torch.linalg.qr(torch.randn(c, c, generator=rng, dtype=torch.double)).Q
    length = torch.rand(n, 1, generator=rng, dtype=torch.double) + .5
    order = torch.randperm(n, generator=rng)
    for choose in (cr.max_min, lambda v, k: cr.fast_map(v, torch.arange(n).double() / n + 1, k)):
        picks, leads = choose(x, k)
        assert min(leads) > 1e-9, "a near tie would make this check random"
        assert choose((x @ turn) * length, k)[0] == picks
    near = (1 - cr.unit_rows(x) @ cr.unit_rows(x).T).fill_diagonal_(9).amin(-1).sort(descending=True).values
    if near[0] - near[1] > 1e-9:                                         # else the first pick is one of a pair, by its index
        assert [int(order[i]) for i in cr.max_min(x[order], k)[0]] == cr.max_min(x, k)[0]
    relevance = torch.rand(n, generator=rng, dtype=torch.double) + .5
    assert [int(order[i]) for i in cr.fast_map(x[order], relevance[order], k)[0]] == cr.fast_map(x, relevance, k)[0]
    assert {int(order[i]) for i in cr.best(tap.attention[tap.feature_layer][0][order], k)} == set(cr.best(tap.attention[tap.feature_layer][0], k))
    picks, unit = cr.fast_map(x, torch.ones(n), k)[0], cr.unit_rows(x)    # the greedy volume is the determinant's, step by step
    for size in (2, 5):
        volume = lambda chosen: float(torch.linalg.slogdet(unit[chosen] @ unit[chosen].T).logabsdet)
        before = picks[:size - 1]
        assert abs(volume(picks[:size]) - max(volume(before + [j]) for j in range(n) if j not in before)) < 1e-9


def check_inside(focus, image, tap):
    """Nothing pruned = the stock run; text-guided = focus_reference's; positions, counts and shares as specified."""
    depth, tokens = len(focus.llm.layers), cr.compress(tap, {"method": "stock"})[0]
    stock = len(tokens)
    plain = cr.answer(focus, tokens, PROMPT, tap.stock)
    own = focus.run(image, PROMPT, vision=False, text=False, new_tokens=4)
    assert torch.equal(own["prefill_logits"], plain["prefill_logits"]) and own["answer_ids"].tolist() == plain["answer_ids"].tolist()
    gamma = focus.cfg["gamma"]
    focus.cfg["gamma"] = 0.9
    own, here = focus.run(image, PROMPT, vision=False, text=True, new_tokens=4), cr.answer(focus, tokens, PROMPT, tap.stock, {"method": "text_guided"})
    focus.cfg["gamma"] = gamma
    for a, b in [("importance", "stage0.scores"), ("kept_visual", "kept_visual"), ("prefill_logits", "prefill_logits"), ("step_logits", "step_logits"),
                 ("answer_ids", "answer_ids"), ("token_counts", "token_counts")]:
        assert torch.equal(own[a], here[b]), a
    close(own["equivalent_share"], here["equivalent_share"], 1e-6)
    for inside in [dict(method="fastv", keep={"ratio": 1.0}), dict(method="pyramiddrop", ratios=[1.0, 1.0]), dict(method="text_guided", keep={"gamma": 1.0}),
                   dict(method="pyramiddrop", ratios=[1.0, 1.0], positions="renumber")]:
        assert torch.equal(cr.answer(focus, tokens, PROMPT, tap.stock, inside)["step_logits"], plain["step_logits"]), inside
    for inside in [dict(method="fastv", layer=1), dict(method="fastv", layer=3, keep={"count": 9}), dict(method="pyramiddrop"), dict(method="text_guided")]:
        t = cr.answer(focus, tokens, PROMPT, tap.stock, inside)
        assert len(t["layer_visual"]) == depth and t["layer_visual"].tolist() == sorted(t["layer_visual"].tolist(), reverse=True)
        share = sum(t["layer_visual"].tolist()) / (depth * tap.stock)
        assert abs(share - float(t["equivalent_share"])) < 1e-6 and t["kept_visual"].tolist() == sorted(set(t["kept_visual"].tolist()))
        if inside["method"] == "pyramiddrop":
            assert [len(t[f"stage{s}.kept"]) for s in range(3)] == [max(1, int(stock * r)) for r in (.5, .25, .125)]
            assert set(t["stage2.kept"].tolist()) <= set(t["stage1.kept"].tolist()) <= set(t["stage0.kept"].tolist())
            assert [int(t[f"stage{s}.layer"]) for s in range(3)] == [depth // 4, depth * 2 // 4, depth * 3 // 4]
        at = focus.prompt_ids(PROMPT).index(focus.model.config.image_token_id)
        if inside["method"] != "text_guided":                            # the row is the one that transformers has in its full attention
            layer = inside["layer"] - 1 if inside["method"] == "fastv" else int(t["stage0.layer"])
            assert float((rows_of(focus, tokens, layer)[at:at + stock] - t["stage0.scores"]).abs().max()) < 1e-6
        if inside["method"] == "fastv":
            assert t["layer_visual"].tolist() == [stock] * inside["layer"] + [len(t["kept_visual"])] * (depth - inside["layer"])
    return 4


@torch.no_grad()
def rows_of(focus, tokens, layer):
    """The last token's attention in one layer as transformers computes it, mean over heads."""
    ids = focus.prompt_ids(PROMPT)
    at = ids.index(focus.model.config.image_token_id)
    embed = lambda i: focus.llm.embed_tokens(torch.tensor(i, dtype=torch.long))
    hidden = torch.cat([embed(ids[:at]), tokens, embed(ids[at + 1:])])[None]
    return focus.llm(inputs_embeds=hidden, output_attentions=True).attentions[layer][0, :, -1].mean(0)


def check_block():
    """One direction of a block is transformers' Mamba mixer, with a norm before and a residual around it."""
    from transformers import MambaConfig
    from transformers.models.mamba.modeling_mamba import MambaMixer
    d, rng = 48, torch.Generator().manual_seed(2)
    mixer = MambaMixer(MambaConfig(hidden_size=d, state_size=16, expand=2, conv_kernel=4, time_step_rank=3, num_hidden_layers=1), 0).eval()
    cfg = {**mr.DEFAULTS, "bidirectional": False, "blocks": [["single", "before"]]}
    params, x = mr.create(cfg, d, 64, 4, identity=False), torch.randn(70, d, generator=rng)
    state = {name: params["meteor.blocks.0." + ("" if name.startswith(("in_proj", "out_proj")) else "forward.") + name] for name in mixer.state_dict()}
    mixer.load_state_dict(state)
    with torch.no_grad():
        normed = x * (x.square().mean(-1, keepdim=True) + cfg["norm_eps"]).rsqrt()
        close(mr.block(params, 0, cfg, x, 0), x + mixer(normed[None])[0], 1e-5)


def check_meteor(folder, models):
    check_block()
    focus = models["tiny-0"]
    cfg = mr.settings(folder / "meteor-tiny-0")
    tap, _ = cr.taps(focus, picture(*SIZES["wide"], 0))
    words = mr.instruction_of(focus, cfg, PROMPT).detach()
    d, c = tap.hidden.shape[-1], tap.features.shape[-1]
    for variant in [{}, {"blocks": [["single", "after"]]}, {"bidirectional": False, "d_conv": 0}, {"sequence": "tile", "discretise_b": "zoh"}]:
        one = {**cfg, **variant, "keep": {"ratio": 1.0}}
        with torch.no_grad():
            tokens, _ = mr.meteor(mr.create(one, d, c), one, tap, words)      # untrained = the stock sequence, bit for bit
        assert torch.equal(tokens, cr.compress(tap, {"method": "stock"})[0]), variant
        orders = [mr.sequences(tap, one, order) for order in ("local", "single")]
        assert all(sorted(sum(o, [])) == tap.candidates() for o in orders), "every patch is scanned once"
        assert one["sequence"] == "tile" or orders[1] == [tap.candidates()]
    with torch.no_grad():
        full = mr.create(cfg, d, c, 3, identity=False)
        base = mr.fuse(full, cfg, tap, words)
        moved = cr.Taps(**tap.__dict__)
        moved.hidden = tap.hidden.clone()
        last = tap.cells[tap.candidates()[-1]]
        moved.hidden[last] += 1
        first = (0, 0)
        sees = float((mr.fuse(full, cfg, moved, words)[first] - base[first]).abs().max())
        causal = {**cfg, "bidirectional": False}
        blind = float((mr.fuse(full, causal, moved, words)[first] - mr.fuse(full, causal, tap, words)[first]).abs().max())
        asked = mr.fuse(full, cfg, tap, words.flip(0))
        touched = (asked - base).abs().amax(-1)
        valid = torch.tensor([i for i in tap.candidates()])
        moved_all = bool((tap.pick(touched[..., None], valid.tolist()) > 0).all())
        padding = torch.ones(tap.hidden.shape[:2], dtype=torch.bool)
        for i in tap.candidates():
            padding[tap.cells[i]] = False
        assert torch.equal(base[padding], tap.features[padding]), "patches in the padding are not touched"
    assert sees > 0 and blind == 0 and moved_all, (sees, blind, moved_all)
    last_set = set()
    with torch.no_grad():
        for r in (.05, .1, .25, .5, 1.0):
            tokens, notes = mr.meteor(full, {**cfg, "keep": {"ratio": r}}, tap, words)
            kept, place = set(notes["kept"].tolist()), notes["token_place"].tolist()
            assert last_set <= kept and len(kept) == cr.budget({"ratio": r}, len(tap.candidates())) and place == sorted(set(place))
            last_set = kept
        alone, members = mr.meteor(full, {**cfg, "instruction": "none"}, tap, words[:0])[1]["kept"].tolist(), tap.candidates()
        assert alone == [members[j] for j in cr.best(tap.pick(tap.attention[tap.feature_layer], members), cr.budget(cfg["keep"], len(members)))]
    leaves = {k: v.clone().requires_grad_() for k, v in mr.create(cfg, d, c).items()}          # gradients: first step of an untrained module
    target = torch.randn(len(tap.candidates()), c, generator=torch.Generator().manual_seed(1))
    loss = (tap.pick(mr.fuse(leaves, cfg, detached(tap), words), tap.candidates()) * target).sum()
    loss.backward()
    live = {k for k, v in leaves.items() if v.grad is not None and float(v.grad.abs().max()) > 0}
    assert live == {k for k in leaves if "out_proj" in k}, live
    leaves = {k: v.clone().requires_grad_() for k, v in full.items()}
    features = mr.fuse(leaves, cfg, detached(tap), words)
    fused = tap.pick(features, tap.candidates())
    scores = mr.combine(tap.pick(tap.attention[tap.feature_layer], tap.candidates()).detach(), mr.native_expert(fused, words), .5, "z_sum")
    top = cr.best(scores.detach(), 20)
    gated = mr.gate(fused[top].detach(), scores[top])
    assert torch.equal(gated, fused[top].detach())
    (gated * target[top]).sum().backward()                                                       # through the scores alone
    live = {k for k, v in leaves.items() if v.grad is not None and float(v.grad.abs().max()) > 0}
    assert live == set(leaves), set(leaves) - live
    weights = sum(math.prod(s) for s in mr.shapes(mr.DEFAULTS, 1024, 4096).values()) / 1e6
    print(f"meteor: a direction = transformers' Mamba mixer; untrained = stock; first patch sees the last ({sees:.1e}), one direction would not; "
          f"every token sees the instruction; gradients as described; {weights:.1f} M weights at 1024/4096")


def detached(tap):
    tap = cr.Taps(**tap.__dict__)
    tap.hidden = tap.hidden.detach()
    return tap


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--fixtures", type=Path, default=Path(__file__).resolve().parents[1] / "fixtures")
    args = parser.parse_args()
    logging.set_verbosity_error(), logging.disable_progress_bar()
    by_hand()
    mr.selftest()
    models = {name: Focus(args.fixtures / name) for name in MODELS}
    properties(models)
    check_meteor(args.fixtures / "compressed", models)


if __name__ == "__main__":
    main()
