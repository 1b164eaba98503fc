#!/usr/bin/env python3
"""Draws docs/pipeline.png: the data flow from a picture and a question to the text model.

    python docs/pipeline.py            # needs Pillow and the DejaVu fonts

The sizes are LLaVA-NeXT's own for the sample picture (640x480: a map of 36x48 patches, 2340 tokens). The scale of each
region and the tokens that stay are a schematic: the first depends on detail in the picture, the second on the distance
to the red shirt. The counts are those of the drawing.
"""
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageStat

HERE = Path(__file__).resolve().parent
PICTURE = HERE / "meadow.png"
QUESTION = "What number is on the red shirt?"
SHIRT = (148, 285)                                     # centre of the red shirt, in the picture's pixels
PATCHES, MAP, WINDOW = 24, (36, 48), 4                 # patches of a tile's side; map (rows, columns); a region's side

GROUND, PANEL, EDGE = (15, 20, 32), (24, 31, 46), (52, 62, 84)
TEXT, FAINT = (236, 240, 247), (150, 161, 182)
BLUE, GREEN, ORANGE, GOLD, GREY = (84, 156, 255), (72, 214, 160), (255, 128, 72), (250, 204, 92), (92, 102, 124)
SCALES = ((4, BLUE), (2, GREEN), (1, ORANGE))


def font(size, bold=False):
    return ImageFont.truetype(f"/usr/share/fonts/truetype/dejavu/DejaVuSans{'-Bold' if bold else ''}.ttf", size)


def choose(picture):
    """A scale for every region: plain 4x4, some detail 2x2, much detail 1x1."""
    grey, (rows, cols) = picture.convert("L"), MAP
    side = picture.width / cols
    choice = {}
    for y in range(0, rows, WINDOW):
        for x in range(0, cols, WINDOW):
            box = [round(v * side) for v in (x, y, x + WINDOW, y + WINDOW)]
            detail = ImageStat.Stat(grey.crop(box)).stddev[0]
            choice[y, x] = 4 if detail < 14 else 2 if detail < 42 else 1
    return choice


def tokens(choice):
    """(y, x, side) of every token in scanline order, and the number of newlines."""
    cells = [(y + r, x + c, k) for (y, x), k in choice.items() for r in range(0, WINDOW, k) for c in range(0, WINDOW, k)]
    return sorted(cells), len({y for y, _, _ in cells})


def keep(cells):
    """Whether a token stays: it is near the red shirt, or one of a thin sample of the rest."""
    side = 640 / MAP[1]
    kept = []
    for i, (y, x, k) in enumerate(cells):
        cy, cx = (y + k / 2) * side, (x + k / 2) * side
        kept.append(((cx - SHIRT[0]) / 95) ** 2 + ((cy - SHIRT[1]) / 125) ** 2 < 1 or i % 11 == 0)
    return kept


def over(base, paint):
    """Paints on a transparent layer of twice the size, so that lines come out smooth."""
    layer = Image.new("RGBA", (base.width * 2, base.height * 2))
    paint(ImageDraw.Draw(layer))
    base.alpha_composite(layer.resize(base.size, Image.LANCZOS))


def grid(base, cells, kept=None):
    unit = base.width * 2 / MAP[1]

    def paint(draw):
        for i, (y, x, k) in enumerate(cells):
            box = [x * unit, y * unit, (x + k) * unit, (y + k) * unit]
            colour = dict(SCALES)[k]
            if kept is not None and not kept[i]:
                draw.rectangle(box, fill=(10, 13, 22, 205))
            else:
                draw.rectangle(box, outline=colour + (235,), width=2)
        if kept is None:
            for y in range(0, MAP[0], WINDOW):
                for x in range(0, MAP[1], WINDOW):
                    k = next(k for a, b, k in cells if (a, b) == (y, x))
                    draw.rectangle([x * unit, y * unit, (x + WINDOW) * unit, (y + WINDOW) * unit],
                                   outline=dict(SCALES)[k] + (255,), width=4)
    over(base, paint)


def tiled(picture, size):
    """The canvas of 2x2 tiles, with the thumbnail squashed to a square beside it."""
    side = size[1]
    out = Image.new("RGBA", size, PANEL)
    canvas = Image.new("RGB", (side, side))
    fitted = picture.convert("RGB").resize((side, side * 3 // 4), Image.LANCZOS)
    canvas.paste(fitted, (0, (side - fitted.height) // 2))
    half, gap = side // 2, 5
    for row in range(2):
        for col in range(2):
            tile = canvas.crop((col * half, row * half, (col + 1) * half, (row + 1) * half)).resize((half - gap, half - gap))
            out.paste(tile, (col * half, row * half + gap))
    small = size[0] - side - 16
    out.paste(picture.convert("RGB").resize((small, small), Image.LANCZOS), (size[0] - small, side - small))
    return out


def main():
    picture = Image.open(PICTURE).convert("RGBA")
    choice = choose(picture)
    cells, newlines = tokens(choice)
    kept = keep(cells)
    thumbnail, stock = PATCHES ** 2, PATCHES ** 2 + MAP[0] * (MAP[1] + 1)
    vision = thumbnail + len(cells) + newlines
    # The schematic keeps the same share of thumbnail and newlines as of the map.
    text = round(vision * sum(kept) / len(cells))

    W, H, M = 1920, 940, 56
    image = Image.new("RGBA", (W, H))
    over(image, lambda d: d.rounded_rectangle([0, 0, 2 * W - 1, 2 * H - 1], 56, fill=GROUND))
    draw = ImageDraw.Draw(image)
    gap = 48
    w = (W - 2 * M - 3 * gap) // 4
    h = w * 3 // 4
    top = 150
    frames = [picture.resize((w, h), Image.LANCZOS), tiled(picture, (w, h)), picture.resize((w, h), Image.LANCZOS), picture.resize((w, h), Image.LANCZOS)]
    grid(frames[2], cells)
    grid(frames[3], cells, kept)
    titles = [("A picture, a question", f"“{QUESTION}”"),
              ("Tiles", "a canvas of 336 px tiles, and a thumbnail"),
              ("Vision-guided sampler", "one scale per region: plain ones shrink"),
              ("Text-guided sampler", "drops what the question does not need")]
    below = [("640×480", "", FAINT),
             ("CLIP and projector:", f"{stock} tokens", FAINT),
             ("to the text model:", f"{vision} tokens", GREEN),
             ("from layer 8 on:", f"{text} tokens", GOLD)]
    for i, (frame, (title, line), under) in enumerate(zip(frames, titles, below)):
        x = M + i * (w + gap)
        draw.text((x, top - 92), title, font=font(29, True), fill=TEXT)
        draw.text((x, top - 48), line, font=font(19), fill=FAINT)
        mask = Image.new("L", (w * 2, h * 2))
        ImageDraw.Draw(mask).rounded_rectangle([0, 0, 2 * w - 1, 2 * h - 1], 28, fill=255)
        image.paste(frame.convert("RGB"), (x, top), mask.resize((w, h), Image.LANCZOS))
        if i < 3:
            cx, cy = x + w + gap // 2, top + h // 2
            over(image, lambda d: (d.line([2 * cx - 24, 2 * cy, 2 * cx + 12, 2 * cy], fill=TEXT, width=6),
                                   d.polygon([(2 * cx + 10, 2 * cy - 16), (2 * cx + 32, 2 * cy), (2 * cx + 10, 2 * cy + 16)], fill=TEXT)))
        draw.text((x, top + h + 22), under[0], font=font(21), fill=FAINT)
        draw.text((x + draw.textlength(under[0] + " ", font=font(21)), top + h + 18), under[1], font=font(26, True), fill=under[2])
    # The scales' colours, under the sampler that chooses them.
    x, y = M + 2 * (w + gap), top + h + 62
    draw.text((x, y - 2), "one token for", font=font(21), fill=FAINT)
    x += 156
    for k, colour in SCALES:
        draw.rectangle([x, y, x + 22, y + 22], outline=colour, width=3)
        draw.text((x + 32, y - 2), f"{k}×{k}", font=font(21), fill=FAINT)
        x += 94

    # Tokens by layer.
    left, right, y = M + 216, W - M - 290, top + h + 152
    unit = (right - left) / stock
    draw.line([M, y - 30, W - M, y - 30], fill=EDGE, width=2)
    bars = [("LLaVA-NeXT", stock, "in all 32 layers", GREY, None),
            ("layers 0 to 7", vision, "once per picture", GREEN, "kept for the next question"),
            ("layers 8 to 31", text, "once per question", GOLD, None)]
    for name, count, when, colour, note in bars:
        draw.text((M, y + 14), name, font=font(24, True), fill=TEXT)
        draw.rounded_rectangle([left, y, left + count * unit, y + 56], 8, fill=colour)
        label = f"{count}"
        dark = (12, 16, 26) if colour is not GREY else TEXT
        draw.text((left + 16, y + 12), label, font=font(26, True), fill=dark)
        draw.text((left + count * unit + 18, y + 14), when + (f", {note}" if note else ""), font=font(22), fill=FAINT)
        y += 84
    draw.text((M, y + 10), "Visual tokens. 2340 is LLaVA-NeXT's count for 640×480. The other two counts are a schematic, not a trained model's choice.",
              font=font(22), fill=TEXT)
    image.save(HERE / "pipeline.png", optimize=True)
    print(f"{stock} -> {vision} -> {text} tokens; {image.size}")


if __name__ == "__main__":
    main()
