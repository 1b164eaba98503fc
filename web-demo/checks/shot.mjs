// Screenshots as PNG files with a palette: a third of the size of a browser's, and at most LIMIT bytes.

import { writeFile } from 'node:fs/promises';
import { deflateSync, inflateSync } from 'node:zlib';

// Largest file in bytes, and the numbers of colours to try.
const LIMIT = 250_000;
const COLOURS = [256, 192, 128, 64, 32];
const SIGNATURE = Buffer.from([137, 80, 78, 71, 13, 10, 26, 10]);

export async function shoot(page, path, options = {}) {
  const picture = decoded(await page.screenshot(options));
  for (const most of COLOURS) {
    const file = encoded(picture, most);
    if (file.length <= LIMIT) return writeFile(path, file);
  }
  throw new Error(`${path}: expected at most ${LIMIT} bytes, got more with ${COLOURS.at(-1)} colours`);
}

// The pixels of a PNG file from Chromium: 8 bits per channel, not interlaced.
function decoded(png) {
  const parts = [];
  let [width, height, channels] = [0, 0, 0];
  for (let at = 8; at < png.length;) {
    const length = png.readUInt32BE(at);
    const kind = png.toString('latin1', at + 4, at + 8);
    const data = png.subarray(at + 8, at + 8 + length);
    if (kind === 'IHDR') [width, height, channels] = [data.readUInt32BE(0), data.readUInt32BE(4), { 2: 3, 6: 4 }[data[9]]];
    if (kind === 'IDAT') parts.push(data);
    at += length + 12;
  }
  const raw = inflateSync(Buffer.concat(parts));
  const stride = width * channels;
  const rows = Buffer.alloc(stride * height);
  for (let y = 0; y < height; y += 1) {
    const filter = raw[y * (stride + 1)];
    for (let x = 0; x < stride; x += 1) {
      const a = x < channels ? 0 : rows[y * stride + x - channels];
      const b = y === 0 ? 0 : rows[(y - 1) * stride + x];
      const c = x < channels || y === 0 ? 0 : rows[(y - 1) * stride + x - channels];
      const guess = [0, a, b, (a + b) >> 1, paeth(a, b, c)][filter];
      rows[y * stride + x] = raw[y * (stride + 1) + 1 + x] + guess;
    }
  }
  const pixels = new Uint32Array(width * height);
  for (let i = 0; i < pixels.length; i += 1) {
    pixels[i] = rows[i * channels] << 16 | rows[i * channels + 1] << 8 | rows[i * channels + 2];
  }
  return { width, height, pixels };
}

function paeth(a, b, c) {
  const [da, db, dc] = [Math.abs(b - c), Math.abs(a - c), Math.abs(a + b - 2 * c)];
  return da <= db && da <= dc ? a : db <= dc ? b : c;
}

// A palette by median cut: boxes of colours are cut in two, the one with the largest gain first.
function palette(counts, most) {
  const channel = (colour, shift) => colour >> shift & 255;
  const box = (colours) => {
    const spreads = [16, 8, 0].map((shift) => {
      const values = colours.map((colour) => channel(colour, shift));
      return { shift, spread: values.reduce((m, v) => Math.max(m, v), 0) - values.reduce((m, v) => Math.min(m, v), 255) };
    });
    const widest = spreads.reduce((most, each) => (each.spread > most.spread ? each : most));
    const weight = colours.reduce((sum, colour) => sum + counts.get(colour), 0);
    return { colours, ...widest, weight, gain: widest.spread * weight ** 0.35 };
  };
  const boxes = [box([...counts.keys()])];
  while (boxes.length < most) {
    const best = boxes.reduce((a, b) => (b.gain > a.gain ? b : a));
    if (best.spread === 0) break;
    const sorted = best.colours.sort((a, b) => channel(a, best.shift) - channel(b, best.shift));
    let [half, seen] = [1, counts.get(sorted[0])];
    while (half < sorted.length - 1 && seen < best.weight / 2) {
      seen += counts.get(sorted[half]);
      half += 1;
    }
    boxes.splice(boxes.indexOf(best), 1, box(sorted.slice(0, half)), box(sorted.slice(half)));
  }
  const index = new Map();
  const colours = boxes.map(({ colours, weight }, place) => {
    for (const colour of colours) index.set(colour, place);
    const mean = (shift) => colours.reduce((sum, colour) => sum + channel(colour, shift) * counts.get(colour), 0) / weight;
    return [16, 8, 0].map((shift) => Math.round(mean(shift)));
  });
  return { colours, index };
}

function encoded({ width, height, pixels }, most) {
  const counts = new Map();
  for (const pixel of pixels) counts.set(pixel, (counts.get(pixel) ?? 0) + 1);
  const { colours, index } = palette(counts, most);
  const rows = Buffer.alloc((width + 1) * height);
  for (let i = 0; i < pixels.length; i += 1) rows[i + Math.floor(i / width) + 1] = index.get(pixels[i]);
  const head = Buffer.alloc(13);
  head.writeUInt32BE(width, 0);
  head.writeUInt32BE(height, 4);
  head.set([8, 3, 0, 0, 0], 8);
  const parts = { IHDR: head, PLTE: Buffer.from(colours.flat()), IDAT: deflateSync(rows, { level: 9 }), IEND: Buffer.alloc(0) };
  return Buffer.concat([SIGNATURE, ...Object.entries(parts).map(([kind, data]) => chunk(kind, data))]);
}

function chunk(kind, data) {
  const named = Buffer.concat([Buffer.from(kind, 'latin1'), data]);
  const whole = Buffer.alloc(named.length + 8);
  whole.writeUInt32BE(data.length, 0);
  named.copy(whole, 4);
  whole.writeUInt32BE(crc(named), named.length + 4);
  return whole;
}

function crc(bytes) {
  let rest = 0xffffffff;
  for (const byte of bytes) {
    rest ^= byte;
    for (let bit = 0; bit < 8; bit += 1) rest = rest & 1 ? rest >>> 1 ^ 0xedb88320 : rest >>> 1;
  }
  return (rest ^ 0xffffffff) >>> 0;
}
