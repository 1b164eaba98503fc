#!/usr/bin/env python3
"""Write small awkward pictures, and the pixels that Pillow decodes from each, to compare our decoder with it.

    make_pictures.py OUT_DIR

OUT_DIR gets the pictures; `expected.safetensors` with one u8 tensor (height, width, 3) per picture that must decode,
named like its file: `ImageOps.exif_transpose(Image.open(f)).convert("RGB")`; and `expected.json`, per file
`{"decode": true, "tolerance": t}`, t the largest difference per byte allowed (0 for lossless formats), or
`{"decode": false, "why": ...}` for what must be refused.

Everything is drawn from arithmetic, nothing from chance, so that the same Pillow writes the same bytes. Only the few
pictures named `given_*` are taken from the fixtures as they are.
"""
import io
import json
import struct
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from safetensors.numpy import save_file

WIDTH, HEIGHT = 24, 16
LOSSY = 4                                    # two correct JPEG or WebP decoders may round this differently, per byte
ROUNDED = {"five_bit.bmp": 1}                # v * 255 / 31 may be cut, as by Pillow, or rounded
GIVEN = Path(__file__).parent.parent / "fixtures" / "awkward"
SMALL = 12, 8                                # of the pictures that are odd in something else than their pixels
XMP6 = b'<x tiff:Orientation="6"/>'


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
    for more in (given, odd_png, odd_jpeg, odd_webp, odd_gif, odd_bmp):
        yield from more()


def given():
    """name -> bytes of pictures that no code here writes; they are kept in the fixtures."""
    for path in sorted(GIVEN.glob("given_*")):
        yield path.name, path.read_bytes()


def exif(*rows, order="<", magic=None, gap=b"", behind=b"", count=None):
    """An Exif block: a directory of (tag, type, count, value) behind a `gap`; a value is a number or four bytes."""
    codes = {1: "B", 3: "H", 4: "L", 8: "h", 9: "l", 11: "f"}
    out = (magic or {"<": b"II*\0", ">": b"MM\0*"}[order]) + struct.pack(order + "L", 8 + len(gap)) + gap
    out += struct.pack(order + "H", len(rows) if count is None else count)
    for tag, kind, number, value in rows:
        value = value if isinstance(value, bytes) else struct.pack(order + codes[kind], value)
        out += struct.pack(order + "HHL", tag, kind, number) + value.ljust(4, b"\0")
    return out + bytes(4) + behind


def held(value, kind=3, **options):
    """An Exif block with an orientation and nothing else."""
    return exif((274, kind, 1, value), **options)


def odd_exif():
    """name -> Exif block that says 6 or nothing, in spellings that readers disagree about."""
    far = struct.pack("<L", 26)
    yield "long", held(6, 4)
    yield "long_big_endian", held(6, 4, order=">")
    yield "signed", held(6, 9)
    yield "float", held(6.0, 11)
    yield "byte", held(6, 1)
    yield "fraction", exif((274, 5, 1, far), behind=struct.pack("<LL", 12, 2))
    yield "double", exif((274, 12, 1, far), behind=struct.pack("<d", 6.0))
    yield "two_values", exif((274, 3, 2, struct.pack("<HH", 6, 3)))
    yield "no_values", exif((274, 3, 0, 6), (274, 3, 1, 8))
    yield "twice", exif((274, 3, 1, 6), (274, 3, 1, 3))
    yield "unsorted", exif((305, 2, 3, b"ab\0"), (274, 3, 1, 6), (256, 4, 1, 12))
    yield "unknown_type", exif((274, 99, 1, 3 * b"\3"), (274, 3, 1, 6))
    yield "far_directory", held(6, gap=bytes(6))
    yield "turned_magic", held(6, order=">", magic=b"MM*\0")
    yield "cut", held(6)[:-4]
    yield "counts_more", exif((274, 3, 1, 6), count=9)
    yield "value_cut_off", exif((305, 2, 20, far), (274, 3, 1, 6), behind=b"short")
    yield "prefix", b"Exif\0\0" + held(6)


def raw_profile(block):
    """Exif as ImageMagick writes it into the text of a PNG."""
    digits = block.hex()
    lines = "\n".join(digits[i:i + 72] for i in range(0, len(digits), 72))
    return f"\nexif\n{len(block):8}\n{lines}\n".encode()


def odd_png():
    """name -> bytes of PNGs whose chunks lie or say something unusual."""
    rgb = colours(*SMALL)
    image = Image.fromarray(rgb)
    head, tail = saved(image, "PNG").split(b"\0\0\0\0IEND")
    at = head.index(b"IDAT") - 4
    end = b"\0\0\0\0IEND" + tail

    def made(before=b"", after=b"", end=end):
        return head[:at] + before + head[at:] + after + end

    def profile(value, key=b"Raw profile type exif"):
        return chunk(b"tEXt", key + b"\0" + raw_profile(b"Exif\0\0" + held(value)))

    text = raw_profile(b"Exif\0\0" + held(6))
    key = b"Raw profile type exif\0"
    xmp = chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP6)
    for name, block in odd_exif():
        yield f"exif_{name}.png", made(chunk(b"eXIf", block))
    yield "exif_late.png", made(after=chunk(b"eXIf", held(6)))
    yield "exif_again_late.png", made(chunk(b"eXIf", held(3)), chunk(b"eXIf", held(6)))
    yield "exif_text.png", made(chunk(b"tEXt", b"exif\0Exif\0\0" + held(6)))
    yield "profile.png", made(profile(6))
    yield "profile_late.png", made(after=profile(6))
    yield "profile_deflated.png", made(chunk(b"zTXt", key + b"\0" + zlib.compress(text)))
    yield "profile_international.png", made(chunk(b"iTXt", key + b"\0\0\0\0" + text))
    yield "profile_international_deflated.png", made(chunk(b"iTXt", key + b"\1\0\0\0" + zlib.compress(text)))
    yield "profile_long.png", made(chunk(b"tEXt", key + raw_profile(held(6, 4, order=">"))))
    yield "profile_spaced.png", made(chunk(b"tEXt", key + text.upper().replace(b"49492A", b"49 49\t2A").replace(b"EXIF", b"exif")))
    yield "profile_app1.png", made(profile(6, b"Raw profile type APP1"))
    yield "profile_beside_exif.png", made(profile(6) + chunk(b"eXIf", held(3)))
    yield "xmp.png", made(xmp)
    yield "xmp_late.png", made(after=xmp)
    yield "xmp_deflated.png", made(chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(XMP6)))
    yield "xmp_text.png", made(chunk(b"tEXt", b"XML:com.adobe.xmp\0" + XMP6))
    yield "xmp_element.png", made(chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0<tiff:Orientation>6</tiff:Orientation>"))
    yield "xmp_single_quotes.png", made(chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP6.replace(b'"', b"'")))
    for value in (0, 1, 3, 9):
        yield f"exif{value}_xmp6.png", made(chunk(b"eXIf", held(value)) + xmp)
    yield "exif_without_xmp6.png", made(chunk(b"eXIf", exif((256, 4, 1, 12))) + xmp)
    yield "unended.png", made(end=b"")
    yield "unknown_chunk.png", made(chunk(b"ABCD", b"?"))
    yield "short_palette.png", png(2, 1, 8, 3, b"\0\1\2", extra=chunk(b"PLTE", bytes([10, 20, 30, 200, 100, 50])))
    turned_round = image.transpose(Image.Transpose.ROTATE_180)
    animated = saved(image, "PNG", save_all=True, append_images=[turned_round], duration=100)
    second, end_at = animated.index(b"fcTL", animated.index(b"IDAT")) - 4, len(animated) - len(end)
    for name, place in [("first", second), ("second", end_at)]:
        yield f"animated_exif_behind_{name}.png", animated[:place] + chunk(b"eXIf", held(6)) + animated[place:]


def jpeg_with(data, segments, names=None, behind_frame=()):
    """A JPEG with other segments of metadata in front, or behind the frame header, and other names of its components."""
    at, parts, old = 2, [], None
    while True:
        length = struct.unpack(">H", data[at + 2:at + 4])[0]
        marker, body = data[at + 1], bytearray(data[at + 4:at + 2 + length])
        at += 2 + length
        if marker == 0xC0:
            old = [body[6 + 3 * i] for i in range(body[5])]
            body[6::3] = names or old
            parts += [(marker, bytes(body)), *behind_frame]
        elif marker == 0xDA:
            body[1:1 + 2 * body[0]:2] = names or old
            parts.append((marker, bytes(body)))
            break
        elif not 0xE0 <= marker <= 0xEF:
            parts.append((marker, bytes(body)))
    def segment(marker, body):
        return bytes([0xFF, marker]) + struct.pack(">H", 2 + len(body)) + body
    return b"\xff\xd8" + b"".join(segment(*part) for part in [*segments, *parts]) + data[at:]


def odd_jpeg():
    """name -> bytes of JPEGs whose metadata or colours are written in unusual ways."""
    image = Image.fromarray(colours(*SMALL))
    plain = saved(image, "JPEG", quality=90, subsampling=0, optimize=True)
    red = saved(image, "JPEG", quality=90, keep_rgb=True, optimize=True)
    inks = saved(image.convert("CMYK"), "JPEG", quality=90, optimize=True)
    jfif = 0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0"
    dense = 0xE0, b"JFIF\0\1\1\1\0\x48\0\x48\0\0"

    def app1(block):
        return 0xE1, b"Exif\0\0" + block

    def xmp(packet):
        return 0xE1, b"http://ns.adobe.com/xap/1.0/\0" + packet

    def adobe(transform):
        return 0xEE, b"Adobe\0\x64\0\0\0\0" + bytes([transform])

    for name, block in odd_exif():
        if name in ("long", "long_big_endian", "fraction", "prefix"):
            yield f"exif_{name}.jpg", jpeg_with(plain, [jfif, app1(block)])
    yield "exif_two.jpg", jpeg_with(plain, [jfif, app1(held(6)), app1(held(3))])
    yield "exif_two_without.jpg", jpeg_with(plain, [jfif, app1(exif((256, 4, 1, 12))), app1(held(3))])
    yield "exif_split.jpg", jpeg_with(plain, [jfif, app1(held(6)[:18]), app1(held(6)[18:])])
    yield "exif_empty_first.jpg", jpeg_with(plain, [jfif, app1(b""), app1(held(6))])
    yield "exif_behind_frame.jpg", jpeg_with(plain, [jfif], behind_frame=[app1(held(6))])
    yield "exif_no_tiff_xmp6.jpg", jpeg_with(plain, [jfif, app1(b"no TIFF file"), xmp(XMP6)])
    for value in (0, 1, 3, 9):
        yield f"exif{value}_xmp6.jpg", jpeg_with(plain, [dense, xmp(XMP6), app1(held(value))])
    yield "exif_without_xmp6.jpg", jpeg_with(plain, [jfif, app1(exif((256, 4, 1, 12))), xmp(XMP6)])
    yield "xmp_two.jpg", jpeg_with(plain, [jfif, xmp(XMP6), xmp(XMP6.replace(b"6", b"3"))])

    for name, segments in {
        "jfif_adobe0": [jfif, adobe(0)],
        "adobe0_jfif": [adobe(0), jfif],
        "adobe0": [adobe(0)],
        "adobe1": [adobe(1)],
        "adobe2": [adobe(2)],
        "adobe3": [adobe(3)],
        "adobe0_adobe1": [adobe(0), adobe(1)],
        "adobe_short": [(0xEE, adobe(0)[1][:11])],
        "jfif_short_adobe0": [(0xE0, jfif[1][:13]), adobe(0)],
        "unmarked": [],
    }.items():
        yield f"colours_{name}.jpg", jpeg_with(plain, segments)
    yield "colours_jfif_adobe0_behind_frame.jpg", jpeg_with(plain, [jfif], behind_frame=[adobe(0)])
    yield "colours_adobe0_behind_frame.jpg", jpeg_with(plain, [], behind_frame=[adobe(0)])
    for name, segments in {"jfif": [jfif], "jfif_adobe0": [jfif, adobe(0)], "adobe1": [adobe(1)], "unmarked": []}.items():
        yield f"colours_named_rgb_{name}.jpg", jpeg_with(red, segments, names=b"RGB")
    yield "colours_named_012.jpg", jpeg_with(red, [], names=b"\0\1\2")
    for name, segments in {"unmarked": [], "jfif": [jfif], "adobe0": [adobe(0)], "adobe1": [adobe(1)], "adobe2": [adobe(2)]}.items():
        yield f"inks_{name}.jpg", jpeg_with(inks, segments)


def odd_webp():
    """name -> bytes of WebPs with unusual chunks."""
    width, height = SMALL
    image = Image.fromarray(colours(*SMALL))
    clear = Image.fromarray(np.dstack([colours(*SMALL), np.broadcast_to(np.arange(width, dtype=np.uint8) * 20, (height, width))]))

    def riff(*chunks):
        body = b"".join(kind + struct.pack("<L", len(data)) + data + bytes(len(data) % 2) for kind, data in chunks)
        return b"RIFF" + struct.pack("<L", 4 + len(body)) + b"WEBP" + body

    def three(number):
        return struct.pack("<L", number)[:3]

    def head(flags, width=width, height=height):
        return b"VP8X", bytes([flags, 0, 0, 0]) + three(width - 1) + three(height - 1)

    def frame(pixels, left, top, flags=0):
        kind, data = pixels
        place = three(left // 2) + three(top // 2) + three(width - 1) + three(height - 1) + three(100)
        return b"ANMF", place + bytes([flags]) + kind + struct.pack("<L", len(data)) + data + bytes(len(data) % 2)

    def lossless(image):
        data = saved(image, "WEBP", lossless=True, exact=True)
        size = struct.unpack("<L", data[data.index(b"VP8L") + 4:][:4])[0]
        return b"VP8L", data[data.index(b"VP8L") + 8:][:size]

    pixels, loop, xmp = lossless(image), (b"ANIM", bytes(6)), (b"XMP ", XMP6)
    for name, block in odd_exif():
        if name in ("long", "long_big_endian", "prefix"):
            yield f"exif_{name}.webp", riff(head(8), pixels, (b"EXIF", block))
    yield "exif_two_prefixes.webp", riff(head(8), pixels, (b"EXIF", 2 * b"Exif\0\0" + held(6)))
    yield "exif_unannounced.webp", riff(head(0), pixels, (b"EXIF", held(6)))
    yield "exif_announced_only.webp", riff(head(8), pixels)
    yield "exif_two.webp", riff(head(8), pixels, (b"EXIF", held(6)), (b"EXIF", held(3)))
    yield "xmp.webp", riff(head(4), pixels, xmp)
    yield "exif0_xmp6.webp", riff(head(12), pixels, (b"EXIF", held(0)), xmp)
    yield "exif_without_xmp6.webp", riff(head(12), pixels, (b"EXIF", exif((256, 4, 1, 12))), xmp)
    yield "alpha_unannounced.webp", riff(head(0), lossless(clear))
    yield "frame_inside.webp", riff(head(2, 20, 14), loop, frame(pixels, 4, 2))
    yield "frame_blended.webp", riff(head(18), loop, frame(lossless(clear), 0, 0))


def odd_gif():
    """name -> bytes of GIFs whose screens, tables and blocks are unusual."""
    table = bytes([10, 20, 30, 200, 0, 0, 0, 200, 0, 0, 0, 200])
    other = bytes([90, 80, 70, 60, 50, 40, 30, 120, 10, 250, 150, 5])
    greys = bytes(grey for index in range(4) for grey in 3 * [index])

    def made(screen=(9, 7), place=(3, 2), table=table, local=None, blocks=b"", interlaced=False, behind=b""):
        whole = gif(screen, place, None)
        head, frame = whole[:13], whole[whole.index(b"\x2c", 25):]
        head = head[:10] + bytes([0x91 if table else 0x11]) + head[11:]
        flags = (0x81 if local else 0) | (0x40 if interlaced else 0)
        return head + (table or b"") + blocks + frame[:9] + bytes([flags]) + (local or b"") + frame[10:-1] + behind + b";"

    control = b"!\xf9\4\1\0\0\2\0"
    yield "frame_bigger.gif", made((2, 1), (0, 0))
    yield "frame_beyond.gif", made((5, 3), (3, 2))
    yield "frame_beyond_interlaced.gif", made((5, 3), (3, 2), interlaced=True, blocks=control)
    yield "screen_zero.gif", made((0, 0), (0, 0))
    yield "screen_zero_offset.gif", made((0, 0), (3, 2), blocks=control)
    yield "screen_zero_wide.gif", made((0, 7), (3, 2))
    yield "nul_between.gif", made(blocks=b"\0" + control + b"\0\0")
    yield "junk_between.gif", made(blocks=b"junk" + control + b"\xff\1\xf9")
    yield "nul_behind.gif", made(behind=b"\0\0")
    yield "local_table.gif", made(local=other, blocks=control)
    yield "local_table_alone.gif", made(table=None, local=other)
    yield "local_greys.gif", made(local=greys)
    yield "greys.gif", made(table=greys)
    yield "no_table.gif", made(table=None, blocks=control)
    yield "transparent_beyond_table.gif", made(blocks=control.replace(b"\2", b"\xc8"))
    yield "control_twice.gif", made(blocks=control + control.replace(b"\1", b"\0"))
    yield "control_long.gif", made(blocks=b"!\xf9\5\1\0\0\2\0\0")
    yield "control_unended.gif", made(blocks=control[:-1] + b"\1\0\0")
    yield "comment_empty.gif", made(blocks=b"!\xfe\0" + control)
    yield "extension_empty.gif", made(blocks=b"!\x77\0\3abc\0" + control)
    yield "xmp.gif", made(blocks=b"!\xff\x0bXMP DataXMP" + XMP6 + b"\1" + bytes(range(255, -1, -1)) + b"\0")


def odd_bmp():
    """name -> bytes of BMPs with unusual headers."""
    width, height = SMALL
    rgb = colours(*SMALL)
    indices = (rgb[..., 2] >> 4)[::-1]
    table = [bytes([i * 15 % 256, 255 - i, i * i % 256, 0]) for i in range(256)]
    four, eight = (indices[:, 0::2] << 4 | indices[:, 1::2]), indices
    wide = rgb.astype(np.uint16)[::-1]
    deep = (wide[..., 0] >> 3 << 11 | wide[..., 1] >> 2 << 5 | wide[..., 2] >> 3).astype("<u2")

    def made(bits, pixels, size=40, planes=1, compression=0, used=0, extra=b"", table=b"", offset=None, height=height):
        if size == 12:
            info = struct.pack("<IHHHH", 12, width, height, planes, bits)
        else:
            info = struct.pack("<IiiHHIIiiII", size, width, height, planes, bits, compression, len(pixels), 0, 0, used, 0)
            info += extra + bytes(max(0, size - 40 - len(extra)))
        start = 14 + len(info) + len(table)
        return struct.pack("<2sIHHI", b"BM", start + len(pixels), 0, 0, start if offset is None else offset) + info + table + pixels

    def pad(rows):
        return b"".join(row.tobytes() + bytes(-len(row.tobytes()) % 4) for row in rows)

    yield "os2.bmp", made(24, pad(rgb[::-1, :, ::-1]), size=12)
    yield "os2_palette.bmp", made(8, pad(eight), size=12, table=b"".join(entry[:3] for entry in table))
    yield "os2_second.bmp", made(24, pad(rgb[::-1, :, ::-1]), size=64)
    yield "top_down.bmp", made(24, pad(rgb[:, :, ::-1]), height=-height)
    yield "planes.bmp", made(24, pad(rgb[::-1, :, ::-1]), planes=0)
    yield "palette_large.bmp", made(4, pad(four), used=20, table=b"".join(table[:20]))
    yield "palette_small.bmp", made(8, pad(eight), used=9, table=b"".join(table[:9]))
    yield "offset_zero.bmp", made(4, pad(four), table=b"".join(table[:16]), offset=0)
    yield "offset_behind_header.bmp", made(4, pad(four), table=b"".join(table[:16]), offset=54)
    yield "five_six_five.bmp", made(16, pad(deep), compression=3, extra=struct.pack("<III", 0xF800, 0x7E0, 0x1F))
    yield "five_five_five.bmp", made(16, pad(deep), size=124)
    yield "named_bits.bmp", made(24, pad(rgb[::-1, :, ::-1]), compression=3, extra=struct.pack("<III", 0xFF0000, 0xFF00, 0xFF))
    runs = b"".join(b"".join(bytes([1, index]) for index in row) + b"\0\0" for row in indices.tolist()) + b"\0\1"
    yield "runs.bmp", made(8, runs, compression=1, table=b"".join(table))


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
    warnings.filterwarnings("ignore", module="PIL")      # some of these pictures are odd on purpose
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
