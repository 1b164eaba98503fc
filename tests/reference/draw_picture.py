#!/usr/bin/env python3
"""Draw the sample picture: three friends in numbered shirts on a meadow.

    draw_picture.py OUT.png

Drawn at four times the size and shrunk, which is all the antialiasing that it needs. Digits are drawn as strokes, so
that no font has to be there and the picture is the same everywhere.
"""
import argparse
import math
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter

W, H, UP = 640, 480, 4


def vertical(top, bottom, width, height):
    """A vertical gradient."""
    strip = Image.new("RGB", (1, 2))
    strip.putdata([top, bottom])
    return strip.resize((width, height), Image.Resampling.BILINEAR, box=(0, 0.5, 1, 1.5))


class Canvas:
    """Drawing in final pixels; the scale is applied here."""
    def __init__(self, image):
        self.image, self.draw = image, ImageDraw.Draw(image)

    def ellipse(self, x, y, rx, ry, fill):
        self.draw.ellipse([UP * (x - rx), UP * (y - ry), UP * (x + rx), UP * (y + ry)], fill=fill)

    def polygon(self, points, fill):
        self.draw.polygon([(UP * x, UP * y) for x, y in points], fill=fill)

    def box(self, x0, y0, x1, y1, radius, fill):
        self.draw.rounded_rectangle([UP * x0, UP * y0, UP * x1, UP * y1], UP * radius, fill=fill)

    def stroke(self, points, width, fill):
        """A line with round ends and joints."""
        for (ax, ay), (bx, by) in zip(points, points[1:]):
            dx, dy = bx - ax, by - ay
            length = math.hypot(dx, dy) or 1
            nx, ny = -dy / length * width / 2, dx / length * width / 2
            self.polygon([(ax + nx, ay + ny), (bx + nx, by + ny), (bx - nx, by - ny), (ax - nx, ay - ny)], fill)
        for x, y in points:
            self.ellipse(x, y, width / 2, width / 2, fill)


def arc(x, y, rx, ry, start, end, steps=32):
    """Points of an elliptic arc, in degrees, clockwise from the right as PIL counts them."""
    return [(x + rx * math.cos(math.radians(start + (end - start) * i / steps)), y + ry * math.sin(math.radians(start + (end - start) * i / steps)))
            for i in range(steps + 1)]


def digit(n):
    """A digit's strokes in a box 1 wide and 1.5 high."""
    return {
        2: [arc(0.5, 0.45, 0.45, 0.45, 190, 385) + [(0.02, 1.5), (1.0, 1.5)]],
        3: [arc(0.46, 0.38, 0.42, 0.38, 200, 440), arc(0.46, 1.08, 0.5, 0.42, -80, 160)],
        5: [[(0.92, 0.0), (0.16, 0.0), (0.08, 0.66)] + arc(0.46, 1.02, 0.5, 0.48, 218, 510)],
        7: [[(0.02, 0.0), (0.98, 0.0), (0.38, 1.5)]],
    }[n]


def number(canvas, text, x, y, height, fill, edge):
    """A jersey number centred on (x, y), with a darker edge around it."""
    unit = height / 1.5
    step = unit * 1.32
    left = x - (step * (len(text) - 1) + unit) / 2
    for width, colour in ((0.46, edge), (0.28, fill)):
        for i, char in enumerate(text):
            for line in digit(int(char)):
                canvas.stroke([(left + i * step + px * unit, y - height / 2 + py * unit) for px, py in line], width * unit, colour)


def cloud(canvas, x, y, size):
    for dx, dy, r in ((-1.5, 0.15, 0.65), (-0.7, -0.25, 0.85), (0.25, -0.4, 1.0), (1.1, -0.05, 0.8), (1.75, 0.25, 0.5)):
        canvas.ellipse(x + dx * size, y + dy * size, r * size, r * size, (255, 255, 255, 235))
    canvas.box(x - 2.1 * size, y, x + 2.2 * size, y + 0.78 * size, 0.4 * size, (255, 255, 255, 235))


def tree(canvas, x, ground, size, tone):
    canvas.box(x - size * 0.09, ground - size * 0.7, x + size * 0.09, ground + 3, size * 0.05, (121, 85, 58))
    dark = tuple(int(c * 0.84) for c in tone)
    for dx, dy, r, colour in ((-0.28, -0.82, 0.36, dark), (0.3, -0.8, 0.36, dark), (0.02, -1.12, 0.46, tone), (-0.2, -0.95, 0.3, tone), (0.22, -0.98, 0.3, tone)):
        canvas.ellipse(x + dx * size, ground + dy * size, r * size, r * size, colour)


def flower(canvas, x, y, size, petal):
    canvas.stroke([(x, y), (x, y + size * 3)], size * 0.5, (62, 130, 56))
    for i in range(5):
        angle = math.tau * i / 5 - math.pi / 2
        canvas.ellipse(x + math.cos(angle) * size, y + math.sin(angle) * size, size * 0.8, size * 0.8, petal)
    canvas.ellipse(x, y, size * 0.7, size * 0.7, (250, 205, 70))


def person(canvas, x, feet, s, skin, hair, style, shirt, trim, trousers, text, wave=None):
    """A figure 250*s high, its feet at (x, feet). `wave` is the side of a raised arm."""
    shade = lambda colour, k: tuple(int(c * k) for c in colour)
    p = lambda dx, dy: (x + dx * s, feet + dy * s)
    # legs and shoes
    for side in (-1, 1):
        canvas.polygon([p(side * 2, -98), p(side * 37, -98), p(side * 34, -8), p(side * 11, -8)], trousers)
        canvas.box(*p(side * 24 - 19 + side * 4, -13), *p(side * 24 + 19 + side * 4, 2), 7 * s, (66, 62, 74))
        canvas.box(*p(side * 24 - 19 + side * 4, -2), *p(side * 24 + 19 + side * 4, 3), 2.5 * s, (238, 238, 240))
    # arms behind the shirt
    for side in (-1, 1):
        if side == wave:
            elbow, hand = p(side * 84, -166), p(side * 93, -226)
        else:
            elbow, hand = p(side * 66, -128), p(side * 60, -88)
        shoulder = p(side * 42, -176)
        canvas.stroke([shoulder, elbow, hand], 19 * s, skin)
        canvas.ellipse(*hand, 12.5 * s, 13 * s, skin)
        if side == wave:
            for spread in (-0.45, -0.15, 0.15, 0.45):
                tip = (hand[0] + math.sin(spread * 1.25) * 27 * s, hand[1] - math.cos(spread * 1.25) * 25 * s)
                canvas.stroke([hand, tip], 6.2 * s, skin)
            canvas.stroke([hand, (hand[0] - side * 18 * s, hand[1] - 6 * s)], 6.6 * s, skin)
        end = (shoulder[0] + (elbow[0] - shoulder[0]) * 0.62, shoulder[1] + (elbow[1] - shoulder[1]) * 0.62)
        tip = (shoulder[0] + (elbow[0] - shoulder[0]) * 0.78, shoulder[1] + (elbow[1] - shoulder[1]) * 0.78)
        canvas.stroke([shoulder, tip], 29 * s, trim)
        canvas.stroke([shoulder, end], 30 * s, shade(shirt, 0.93))
    # neck, then the shirt over it
    canvas.box(*p(-12, -214), *p(12, -178), 8 * s, shade(skin, 0.9))
    outline = [p(-22, -196), p(-46, -189), p(-55, -172), p(-47, -140), p(-46, -92), p(46, -92), p(47, -140), p(55, -172), p(46, -189), p(22, -196)]
    canvas.polygon(outline, shirt)
    for side in (-1, 1):
        canvas.ellipse(*p(side * 41, -175), 15 * s, 15 * s, shirt)
    canvas.polygon([p(30, -140), p(47, -140), p(46, -92), p(36, -92)], shade(shirt, 0.93))
    canvas.box(*p(-46.5, -97), *p(46.5, -89), 3 * s, trim)
    canvas.polygon([p(-24, -198), p(24, -198), p(0, -173)], trim)
    canvas.polygon([p(-16, -199), p(16, -199), p(0, -182)], shade(skin, 0.9))
    number(canvas, text, *p(0, -135), 55 * s, (255, 255, 255), shade(shirt, 0.55))
    # head
    if style == "long":
        canvas.ellipse(*p(0, -240), 38 * s, 41 * s, hair)
        canvas.box(*p(-38, -242), *p(38, -194), 17 * s, hair)
        canvas.box(*p(-12, -214), *p(12, -184), 8 * s, shade(skin, 0.9))
    if style == "curly":
        for i in range(11):
            angle = math.radians(180 + i * 18)
            canvas.ellipse(*p(31 * math.cos(angle), -246 + 29 * math.sin(angle)), 14 * s, 14 * s, hair)
    for side in (-1, 1):
        canvas.ellipse(*p(side * 31, -232), 6.5 * s, 8 * s, shade(skin, 0.93))
    canvas.ellipse(*p(0, -235), 31 * s, 35 * s, skin)
    if style == "short":
        canvas.polygon([p(-32, -238)] + [(x + a * s, feet + b * s) for a, b in arc(0, -240, 33, 36, 180, 360)] + [p(32, -238), p(25, -254), p(8, -259), p(-14, -256), p(-26, -250)], hair)
    elif style == "long":
        canvas.polygon([(x + a * s, feet + b * s) for a, b in arc(0, -238, 34, 37, 176, 364)] + [p(20, -253), p(4, -262), p(-16, -253)], hair)
    else:
        canvas.polygon([(x + a * s, feet + b * s) for a, b in arc(0, -242, 33, 33, 188, 352)] + [p(16, -254), p(0, -257), p(-16, -254)], hair)
    for side in (-1, 1):
        canvas.ellipse(*p(side * 12, -235), 4 * s, 5 * s, (48, 38, 40))
        canvas.ellipse(*p(side * 12 + 1.4, -237), 1.4 * s, 1.6 * s, (255, 255, 255))
        canvas.stroke([p(side * 7.5, -245.5), p(side * 12, -247.5), p(side * 17, -245.5)], 2.4 * s, shade(hair, 0.8))
        canvas.ellipse(*p(side * 19, -223), 5.5 * s, 3.6 * s, tuple(int(c * 0.75 + d * 0.25) for c, d in zip(skin, (235, 95, 90))))
    canvas.stroke([p(0, -231), p(2.4, -225.5), p(-1, -225)], 2 * s, shade(skin, 0.82))
    mouth = [(x + a * s, feet + b * s) for a, b in arc(0, -221, 11.5, 10.5, 12, 168)]
    canvas.polygon(mouth, (150, 52, 56))
    canvas.polygon([(x + a * s, feet + b * s) for a, b in arc(0, -221, 10.5, 5, 18, 162)], (255, 255, 255))


def shadow(image, x, y, rx, ry):
    """A soft shadow on the grass."""
    veil = Image.new("L", image.size, 0)
    ImageDraw.Draw(veil).ellipse([UP * (x - rx), UP * (y - ry), UP * (x + rx), UP * (y + ry)], fill=110)
    image.paste((30, 74, 40), (0, 0), veil.filter(ImageFilter.GaussianBlur(UP * 4)))


def scene():
    image = vertical((92, 176, 236), (214, 240, 252), W * UP, H * UP)
    sun = (548, 78)
    glow = Image.new("L", image.size, 0)
    Canvas(glow).ellipse(*sun, 66, 66, 190)
    image.paste((255, 246, 200), (0, 0), glow.filter(ImageFilter.GaussianBlur(UP * 18)))
    canvas = Canvas(image)
    canvas.ellipse(*sun, 40, 40, (255, 214, 82))
    canvas.ellipse(*sun, 33, 33, (255, 226, 118))
    clouds = Image.new("RGBA", image.size, (255, 255, 255, 0))
    for x, y, size in ((96, 72, 21), (330, 46, 15), (446, 112, 11)):
        cloud(Canvas(clouds), x, y, size)
    image.paste(clouds, (0, 0), clouds)
    hill = lambda base, height, period, phase: [(x, base - height * (0.5 + 0.5 * math.sin(x / period + phase))) for x in range(-8, W + 9, 4)]
    canvas.polygon(hill(292, 74, 92, 0.6) + [(W + 8, H), (-8, H)], (150, 205, 168))
    canvas.polygon(hill(306, 48, 130, 3.4) + [(W + 8, H), (-8, H)], (122, 190, 122))
    for x, ground, size, tone in ((58, 312, 66, (84, 158, 86)), (112, 306, 48, (96, 170, 94)), (596, 310, 72, (80, 152, 84)), (212, 300, 36, (104, 176, 100)), (434, 300, 38, (98, 170, 96))):
        tree(canvas, x, ground, size, tone)
    meadow = Image.new("L", image.size, 0)
    Canvas(meadow).polygon(hill(322, 20, 150, 1.2) + [(W + 8, H), (-8, H)], 255)
    ground = Image.new("RGB", image.size)
    ground.paste(vertical((136, 204, 92), (70, 152, 66), W * UP, (H - 296) * UP), (0, 296 * UP))
    image.paste(ground, (0, 0), meadow)
    for i in range(240):                                        # tufts: a fixed low-discrepancy scatter, larger towards the viewer
        x, depth = (i * 0.6180339887) % 1 * W, (i * 0.7548776662) % 1
        y, h = 328 + depth * 146, 3 + 6 * depth
        tone = (92, 172, 74) if i % 3 else (162, 216, 104)
        for lean in (-0.5, 0.0, 0.5):
            canvas.stroke([(x, y), (x + lean * h, y - h)], 0.9 + 0.5 * depth, tone)
    flowers = ((34, 396, 3.0, (255, 255, 255)), (74, 440, 4.2, (248, 140, 160)), (214, 418, 3.2, (255, 255, 255)), (232, 456, 4.4, (188, 140, 232)),
               (420, 432, 3.6, (248, 140, 160)), (404, 458, 4.4, (255, 255, 255)), (600, 404, 3.2, (188, 140, 232)), (622, 448, 4.4, (255, 255, 255)), (14, 460, 4.2, (188, 140, 232)))
    for x, y, size, petal in flowers[:1] + flowers[2:3] + flowers[6:7]:
        flower(canvas, x, y, size, petal)
    for x, y, rx in ((138, 438, 74), (322, 448, 80), (508, 438, 74)):
        shadow(image, x + 10, y, rx, 13)
    canvas = Canvas(image)
    person(canvas, 138, 436, 1.08, (244, 200, 168), (124, 70, 42), "long", (218, 60, 62), (255, 236, 226), (58, 72, 118), "7", wave=-1)
    person(canvas, 508, 436, 1.06, (226, 172, 130), (52, 40, 40), "short", (52, 152, 92), (250, 226, 96), (92, 78, 70), "5", wave=1)
    person(canvas, 322, 446, 1.2, (148, 96, 68), (46, 32, 32), "curly", (46, 104, 204), (252, 204, 76), (74, 80, 92), "23")
    for spec in flowers:
        if spec[1] > 425:
            flower(canvas, *spec)
    return image.resize((W, H), Image.Resampling.LANCZOS)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    scene().save(args.out, optimize=True)


if __name__ == "__main__":
    main()
