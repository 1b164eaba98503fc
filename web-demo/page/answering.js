// The settings of an answer: temperature, length, system prompt, and whether the model reads the conversation so far; and how the
// model is loaded: weights, KV cache, memory limit.

import { at, complain } from './dom.js';
import { keep, recall } from './memory.js';
import { bytesOf } from './numbers.js';

const NAME = 'settings';
// The controls of how the model is loaded.
const LOADING = ['weights', 'cache', 'memory'];
const [temperature, length, system, remembers] = ['temperature', 'length', 'system', 'remembers'].map(at);
let kept = recall(NAME) ?? {};

// Sets a stored value, as far as the control allows it.
if (kept.temperature !== undefined) temperature.value = kept.temperature;
if (kept.length >= 1) length.value = kept.length;
system.value = kept.system ?? '';
for (const id of LOADING) {
  if (kept[id]) at(id).value = kept[id];
  // A list without this entry.
  if (at(id).selectedIndex < 0) at(id).value = 'auto';
}
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
at('usual').addEventListener('click', () => {
  [temperature.value, length.value, system.value] = [temperature.defaultValue, length.defaultValue, ''];
  temperature.dispatchEvent(new Event('input'));
});

// Calls `changed` after a change of how the model is loaded. A memory limit that is no size is an error of its field.
export function connect(changed) {
  for (const id of LOADING) {
    at(id).addEventListener('change', () => {
      try {
        loading();
        complain('memory', '');
      } catch (why) {
        complain('memory', why.message);
        return;
      }
      change(Object.fromEntries(LOADING.map((each) => [each, at(each).value])));
      changed();
    });
  }
}

// How the model is loaded, as options of `Fovea.create`. Throws if the memory limit is no size.
export const loading = () => ({
  dtype: at('weights').value, cache: at('cache').value, memory: bytesOf('memory', at('memory').value),
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
