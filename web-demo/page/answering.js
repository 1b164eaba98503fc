// The settings of an answer: temperature, length, system prompt, and whether the model reads the conversation so far.

import { at } from './dom.js';
import { keep, recall } from './memory.js';

const NAME = 'settings';
const [temperature, length, system, remembers] = ['temperature', 'length', 'system', 'remembers'].map(at);
let kept = recall(NAME) ?? {};

// Sets a stored value, as far as the control allows it.
if (kept.temperature !== undefined) temperature.value = kept.temperature;
if (kept.length >= 1) length.value = kept.length;
system.value = kept.system ?? '';
if (kept.weights) at('weights').value = kept.weights;
if (at('weights').selectedIndex < 0) at('weights').value = 'auto';
show();

for (const input of [temperature, length, system, remembers]) {
  input.addEventListener('input', () => {
    show();
    change({
      temperature: temperature.valueAsNumber,
      length: length.valueAsNumber || undefined,
      system: system.value,
      ...(input === remembers && { remembers: remembers.checked }),
    });
  });
}
at('weights').addEventListener('change', () => change({ weights: at('weights').value }));
at('usual').addEventListener('click', () => {
  [temperature.value, length.value, system.value] = [temperature.defaultValue, length.defaultValue, ''];
  temperature.dispatchEvent(new Event('input'));
});

// Keeps changed settings.
export function change(settings) {
  kept = { ...kept, ...settings };
  keep(NAME, kept);
}

// The compression that was set for a model; undefined without one.
export const compressionOf = (model) => (kept.model === model ? kept.compression : undefined);

// Forgets what is kept; the controls stay.
export function forget() {
  kept = {};
  keep(NAME, null);
}

// A model's usual setting, unless the user chose one. The demo model was trained on single questions.
export function suit(isDemo) {
  remembers.checked = kept.remembers ?? !isDemo;
}

// Whether the model reads the conversation so far.
export const reads = () => remembers.checked;

export const systemPrompt = () => system.value;

// The options of a question. A sampled answer differs each time.
export function options() {
  const warmth = temperature.valueAsNumber;
  return {
    maxNewTokens: Math.max(1, Math.round(length.valueAsNumber || Number(length.defaultValue))),
    ...(warmth > 0 && { temperature: warmth, seed: Math.floor(Math.random() * 2 ** 32) }),
  };
}

function show() {
  const warmth = temperature.valueAsNumber;
  at('temperature-is').value = warmth === 0 ? '0: always the most likely word' : warmth.toFixed(2);
}
