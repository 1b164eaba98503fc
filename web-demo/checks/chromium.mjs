// Headless Chromium for the checks. Needs the packages playwright-core and axe-core in the current directory, and Chromium in
// PATH.

import { execFileSync } from 'node:child_process';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const { resolve } = createRequire(join(process.cwd(), 'checks.mjs'));
const { chromium } = (await import(pathToFileURL(resolve('playwright-core')))).default;
const FLAGS = ['--no-sandbox', '--disable-gpu-watchdog', '--disable-dev-shm-usage', '--disable-quic',
  '--disable-background-networking', '--disable-component-update', '--disable-extensions', '--disable-sync', '--no-first-run'];

// WebGPU with a software GPU.
export const GPU = ['--enable-unsafe-webgpu', '--use-webgpu-adapter=swiftshader'];
// The timeout for everything that is slow there.
export const SLOW = { timeout: 300_000 };

export const axe = () => resolve('axe-core/axe.min.js');

export function launch(...flags) {
  const executablePath = execFileSync('which', ['chromium'], { encoding: 'utf8' }).trim();
  return chromium.launch({ executablePath, args: [...FLAGS, ...flags] });
}

// Opens the page `name` at `address`. Collects the errors on its console, and the tasks of its thread above 50 ms. `before`
// receives the page before it loads.
export async function open(browser, address, name, { before = async () => {}, ...options } = {}) {
  // With a service worker, a check could not change a file of the page.
  const context = await browser.newContext({ viewport: { width: 1080, height: 860 }, serviceWorkers: 'block', ...options });
  context.setDefaultTimeout(SLOW.timeout);
  context.setDefaultNavigationTimeout(SLOW.timeout);
  const page = await context.newPage();
  const complaints = [];
  page.on('pageerror', (why) => complaints.push(why.message));
  page.on('console', (message) => message.type() === 'error' && complaints.push(message.text()));
  await page.addInitScript(() => {
    globalThis.longTasks = [];
    const take = ({ startTime, duration }) => globalThis.longTasks.push({ at: Math.round(startTime), ms: duration });
    new PerformanceObserver((list) => list.getEntries().forEach(take)).observe({ type: 'longtask', buffered: true });
  });
  await before(page);
  await page.goto(new URL(name, address).href);
  return { page, complaints, longTasks: () => page.evaluate(() => globalThis.longTasks), close: () => context.close() };
}
