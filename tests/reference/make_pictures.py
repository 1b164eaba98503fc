#!/usr/bin/env python3
"""Write a zoo of small awkward pictures, and what Pillow makes of each, so that our decoder can be held to it.

    make_pictures.py OUT_DIR

OUT_DIR gets the pictures; `expected.safetensors` with one u8 tensor (height, width, 3) per picture that must decode,
named like its file: `ImageOps.exif_transpose(Image.open(f)).convert("RGB")`; and `expected.json`, per file
`{"decode": true, "tolerance": t}`, t the largest difference per byte allowed (0 for lossless formats), or
`{"decode": false, "why": ...}` for what must be refused.

Everything is drawn from arithmetic, nothing from chance, so that the same Pillow writes the same bytes.
"""
import io
import json
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from safetensors.numpy import save_file

WIDTH, HEIGHT = 24, 16
LOSSY = 4                                    # two correct JPEG or WebP decoders may round this differently, per byte
ROUNDED = {"five_bit.bmp": 1}                # Pillow cuts v * 255 / 31, the image crate rounds it


def colours(width=WIDTH, height=HEIGHT):
    """A smooth picture without any symmetry: (height, width, 3) u8."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 // max(width - 1, 1), y * 255 // max(height - 1, 1), (x * 7 + y * 13) % 256], -1).astype(np.uint8)


def alpha():
    """A ramp from transparent to opaque: (HEIGHT, WIDTH) u8."""
    return np.broadcast_to(np.linspace(0, 255, WIDTH).astype(np.uint8), (HEIGHT, WIDTH)).copy()


def saved(image, form, **options):
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, depth, colour, rows, interlace=0, extra=b""):
    """A PNG written by hand, for the layouts that Pillow does not write. `rows` come with their filter bytes."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def plain_rows(samples):
    """(height, width, channels) big-endian samples -> PNG rows without filter."""
    return b"".join(b"\0" + row.tobytes() for row in samples)


def adam7(pixels):
    """PNG rows of the seven passes of an interlaced picture."""
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    parts = [pixels[y::dy, x::dx] for y, x, dy, dx in passes]
    return b"".join(plain_rows(part) for part in parts if part.size)


def bmp16(pixels):
    """A BMP with 5 bits a colour, rows from bottom to top."""
    r, g, b = (pixels[..., i].astype(np.uint16) >> 3 for i in range(3))
    data = (r << 10 | g << 5 | b).astype("<u2")[::-1].tobytes()
    info = struct.pack("<IiiHHIIiiII", 40, pixels.shape[1], pixels.shape[0], 1, 16, 0, len(data), 2835, 2835, 0, 0)
    return struct.pack("<2sIHHI", b"BM", 54 + len(data), 0, 0, 54) + info + data


def gif(screen, frame, transparent):
    """A GIF whose first frame, 4x3 pixels at `frame`, is smaller than its `screen`; LZW without compression."""
    palette = bytes([10, 20, 30, 200, 0, 0, 0, 200, 0, 0, 0, 200])
    out = b"GIF89a" + struct.pack("<HHBBB", *screen, 0x91, 3, 0) + palette
    if transparent is not None:
        out += b"\x21\xf9\x04" + struct.pack("<BHB", 1, 0, transparent) + b"\0"
    out += b"\x2c" + struct.pack("<HHHHB", *frame, 4, 3, 0)
    indices, bits, n = [0, 1, 2, 3, 1, 2, 3, 0, 2, 3, 0, 1], 0, 0
    codes = [4] + [c for i in range(0, 12, 2) for c in (*indices[i:i + 2], 4)][:-1] + [5]     # a clear code keeps 3 bits
    for code in codes:
        bits |= code << n
        n += 3
    data = bits.to_bytes((n + 7) // 8, "little")
    return out + b"\x02" + bytes([len(data)]) + data + b"\0\x3b"


def zoo():
    """name -> bytes of what must decode."""
    rgb = colours()
    image, grey = Image.fromarray(rgb), Image.fromarray(rgb[..., 2])
    rgba = Image.fromarray(np.dstack([rgb, alpha()]))
    palette = image.quantize(16, dither=Image.Dither.NONE)
    wide = rgb.astype(np.uint16) * 257 - np.arange(WIDTH, dtype=np.uint16)[None, :, None] * 9
    deep = (np.arange(WIDTH * HEIGHT, dtype=np.uint16).reshape(HEIGHT, WIDTH, 1) * 7).astype(">u2")
    wide_a = np.dstack([wide, alpha().astype(np.uint16) * 257]).astype(">u2")
    yield "rgb.png", saved(image, "PNG")
    yield "wrong_extension.jpg", saved(image, "PNG")
    yield "grey.png", saved(grey, "PNG")
    yield "one_bit.png", saved(grey.convert("1"), "PNG")
    four = (rgb[..., 2] >> 4).astype(np.uint8)
    yield "four_bit_grey.png", png(WIDTH, HEIGHT, 4, 0, plain_rows(four[:, 0::2] << 4 | four[:, 1::2]))
    yield "grey_alpha.png", saved(Image.merge("LA", [grey, Image.fromarray(alpha())]), "PNG")
    yield "rgba.png", saved(rgba, "PNG")
    yield "palette.png", saved(palette, "PNG")
    yield "palette_transparency.png", saved(palette, "PNG", transparency=3)
    yield "grey_transparency.png", saved(grey, "PNG", transparency=26)
    yield "grey16.png", png(WIDTH, HEIGHT, 16, 0, plain_rows(deep))
    yield "grey16_transparency.png", png(WIDTH, HEIGHT, 16, 0, plain_rows(deep), extra=chunk(b"tRNS", b"\0\x07"))
    yield "grey_alpha16.png", png(WIDTH, HEIGHT, 16, 4, plain_rows(wide_a[..., 2:]))
    yield "rgb16.png", png(WIDTH, HEIGHT, 16, 2, plain_rows(wide.astype(">u2")))
    yield "rgba16.png", png(WIDTH, HEIGHT, 16, 6, plain_rows(wide_a))
    yield "interlaced.png", png(WIDTH, HEIGHT, 8, 2, adam7(rgb), interlace=1)
    yield "animated.png", saved(image, "PNG", save_all=True, append_images=[grey.convert("RGB")], duration=100)
    yield "exif6.png", saved(image, "PNG", exif=turned(6))
    yield "one_pixel.png", saved(Image.fromarray(colours(1, 1)), "PNG")
    yield "needle_1x10000.png", saved(Image.fromarray(colours(1, 10000)), "PNG")
    for turn in range(1, 9):
        yield f"exif{turn}.jpg", saved(image, "JPEG", quality=90, subsampling=0, exif=turned(turn))
    yield "xmp8.jpg", saved(image, "JPEG", quality=90, subsampling=0, xmp=b'<x:xmpmeta tiff:Orientation="8"/>')
    yield "grey.jpg", saved(grey, "JPEG", quality=90)
    yield "progressive.jpg", saved(image, "JPEG", quality=90, subsampling=0, progressive=True)
    yield "subsampled.jpg", saved(image, "JPEG", quality=90, subsampling=2)
    yield "cmyk.jpg", saved(image.convert("CMYK"), "JPEG", quality=95)
    yield "lossless.webp", saved(image, "WEBP", lossless=True)
    yield "lossless_alpha.webp", saved(rgba, "WEBP", lossless=True, exact=True)
    yield "lossy.webp", saved(image, "WEBP", quality=90)
    yield "exif8.webp", saved(image, "WEBP", lossless=True, exif=turned(8))
    yield "animated.webp", saved(image, "WEBP", save_all=True, append_images=[grey.convert("RGB")], duration=100, lossless=True)
    yield "palette.gif", saved(palette, "GIF")
    yield "transparent.gif", saved(palette, "GIF", transparency=5)
    yield "animated.gif", saved(palette, "GIF", save_all=True, append_images=[grey], duration=100)
    yield "interlaced.gif", saved(palette, "GIF", interlace=1)
    yield "margin.gif", gif((9, 7), (3, 2), None)
    yield "margin_transparent.gif", gif((9, 7), (3, 2), 2)
    yield "one_bit.bmp", saved(grey.convert("1"), "BMP")
    yield "palette.bmp", saved(palette, "BMP")
    yield "rgb.bmp", saved(image, "BMP")
    yield "rgba.bmp", saved(rgba, "BMP")
    yield "five_bit.bmp", bmp16(rgb)


def turned(orientation):
    """Exif that says how the camera was held."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def refused(files):
    """name -> (bytes, why) of what must be an error."""
    huge = struct.pack(">IIBBBBB", 20000, 20000, 8, 2, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n"
    yield "empty.png", b"", "an empty file"
    yield "text.png", b"This is not a picture, whatever its name says.\n", "text"
    yield "truncated.png", files["rgb.png"][:len(files["rgb.png"]) * 2 // 3], "cut in the pixels"
    yield "truncated.jpg", files["exif1.jpg"][:-60], "cut in the pixels"
    yield "truncated_progressive.jpg", files["progressive.jpg"][:-60], "cut in a later scan"
    yield "truncated.webp", files["lossless.webp"][:-40], "cut in the pixels"
    yield "truncated.gif", files["palette.gif"][:-60], "cut in the pixels"
    yield "truncated.bmp", files["rgb.bmp"][:-100], "cut in the pixels"
    yield "header_20000x20000.png", start + chunk(b"IHDR", huge) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b""), "above the limits"
    yield "zero_width.png", png(0, 16, 8, 2, b"\0" * 16), "no pixels"
    yield "header_only.png", files["rgb.png"][:33], "no pixels in the file"


def main(out):
    out.mkdir(parents=True, exist_ok=True)
    files, expected, tensors = dict(zoo()), {}, {}
    for name, data in files.items():
        picture = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
        tensors[name] = np.ascontiguousarray(picture)
        lossy = data[:2] == b"\xff\xd8" or name == "lossy.webp"
        expected[name] = {"decode": True, "tolerance": LOSSY if lossy else ROUNDED.get(name, 0)}
    for name, data, why in refused(files):
        files[name] = data
        expected[name] = {"decode": False, "why": why}
        try:
            Image.open(io.BytesIO(data)).convert("RGB")
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
            continue
        sys.exit(f"Pillow reads {name}, so it is no example of what must be refused")
    for name, data in files.items():
        (out / name).write_bytes(data)
    save_file(tensors, out / "expected.safetensors")
    (out / "expected.json").write_text(json.dumps(expected, indent=2) + "\n")
    size = sum(path.stat().st_size for path in out.iterdir())
    print(f"{len(tensors)} pictures to decode, {len(files) - len(tensors)} to refuse, {size} bytes in {out}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
