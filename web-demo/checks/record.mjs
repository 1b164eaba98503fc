// Records what the page replays if the engine can't run: the command line's answers to the questions of one example, with their
// attention overlays.
//
//     node record.mjs [FOVEA]
//
// FOVEA is the command line's binary, by default `target/debug/fovea`. Replaces the page's folder `recorded`. Needs the same as
// chromium.mjs: Chromium compresses the overlays.

import { execFileSync } from 'node:child_process';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

import { launch } from './chromium.mjs';

const PICTURE = 'rack.jpg';
const QUALITY = 0.5;

const root = fileURLToPath(new URL('../../', import.meta.url));
const pictures = join(root, 'native-demo/pictures');
const to = join(root, 'web-demo/page/recorded');
const fovea = resolve(process.argv[2] ?? join(root, 'target/debug/fovea'));

const lines = (await readFile(join(pictures, 'questions.jsonl'), 'utf8')).split('\n').filter(Boolean);
const questions = lines.map((line) => JSON.parse(line)).filter(({ image }) => image === PICTURE).map(({ question }) => question);

const browser = await launch();
const page = await browser.newPage();
const webp = async (png) => Buffer.from(await page.evaluate(async ([bytes, quality]) => {
  const picture = await createImageBitmap(await (await fetch(`data:image/png;base64,${bytes}`)).blob());
  const canvas = new OffscreenCanvas(picture.width, picture.height);
  canvas.getContext('2d').drawImage(picture, 0, 0);
  const file = await canvas.convertToBlob({ type: 'image/webp', quality });
  return [...new Uint8Array(await file.arrayBuffer())];
}, [png.toString('base64'), QUALITY]));

const drawings = await mkdtemp(join(tmpdir(), 'recorded-'));
await rm(to, { recursive: true, force: true });
await mkdir(to);
const runs = [];
for (const [index, question] of questions.entries()) {
  const drawing = join(drawings, `${index}.png`);
  const args = ['ask', join(pictures, PICTURE), question, '--device', 'cpu', '--json', '--overlay', drawing];
  const done = JSON.parse(execFileSync(fovea, args, { encoding: 'utf8' }));
  const overlay = `${index}.webp`;
  await writeFile(join(to, overlay), await webp(await readFile(drawing)));
  runs.push({ overlay, done });
  console.log(`${question} ${done.answer}`);
}
await rm(drawings, { recursive: true });
await browser.close();
const [{ done: { device, dtype } }] = runs;
const version = execFileSync(fovea, ['--version'], { encoding: 'utf8' }).trim();
const of = `${version} on ${device}, in ${dtype}`;
await writeFile(join(to, 'runs.json'), `${JSON.stringify({ picture: PICTURE, of, runs })}\n`);
