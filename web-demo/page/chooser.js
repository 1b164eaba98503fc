// The compression of the next question, and the other one of a comparison. A text field has each, spelled as on the command line.
// A list and sliders change the text; the engine checks a typed text, which then changes the list and the sliders.

import { at, complain, make } from './dom.js';

const FOCUS = { name: 'focus', title: 'FocusLLaVA: both samplers', about: 'The vision-guided sampler, then the text-guided sampler', source: 'arXiv 2411.14228', default: 'focus' };
const NONE = { name: 'none', title: 'All tokens', about: 'The text model reads every visual token', default: 'none' };
// The parts with the text-guided sampler, which have the settings `gamma` and `layer`.
const TEXT = ['focus', 'text'];

// The engine's description, the entries of the list by name, and the last valid compression.
let engine = null;
let entries = new Map();
let valid = '';
let check;

// Connects the controls. `check` returns a promise of a compression's shortest spelling; `changed` is called after a change.
export function chooser(checks, changed) {
  check = checks;
  const accept = (spec) => {
    show(spec);
    changed();
  };
  at('default').addEventListener('click', () => accept(engine.compression));
  at('method').addEventListener('change', () => accept(spelling(at('method').value)));
  for (const [id, key, digits] of [['gamma', 'gamma', 2], ['layer', 'layer', 0], ['budget', 'keep', 2]]) {
    // With a point, `keep` is a share and not a number of tokens.
    at(id).addEventListener('input', () => accept(withSetting(id, key, at(id).valueAsNumber.toFixed(digits))));
  }
  const other = (spec) => write('other-spec', 'other', spec);
  at('other').addEventListener('change', () => other(spelling(at('other').value)));
  for (const [id, take] of [['spec', accept], ['other-spec', other]]) {
    at(id).addEventListener('change', async () => {
      const given = at(id).value;
      try {
        const spec = await check(textOf(id) ?? engine.compression);
        if (at(id).value === given) take(spec);
      } catch (why) {
        if (why?.name !== 'AbortError') complain(id, why?.message ?? String(why));
      }
    });
  }
}

// Lists the methods that fit an engine, and chooses its default.
export function offer(about) {
  engine = about;
  const focus = ['vision', 'text'].every((name) => about.methods.some((method) => method.name === name)) ? [FOCUS] : [];
  const top = [...focus, NONE];
  entries = new Map([...top, ...about.methods].map((entry) => [entry.name, entry]));
  const option = ({ name, title }) => make('option', { value: name }, title);
  const group = (label, place) => make('optgroup', { label }, ...about.methods.filter((method) => method.place === place).map(option));
  for (const id of ['method', 'other']) {
    // The last one is shown if the text is not a single method.
    at(id).replaceChildren(...top.map(option), group('Before the model', 'before'), group('Inside the model', 'within'),
      make('option', { value: '', hidden: true }, 'As in the text field'));
  }
  write('other-spec', 'other', NONE.default);
  at('layer').max = about.layers - 1;
  show(about.compression);
}

// Chooses a compression that fits the engine, else rejects.
export async function choose(spec) {
  show(await check(spec));
}

// The chosen compression; undefined is the checkpoint's default.
export const compression = () => textOf('spec');

// The two methods of a comparison: a title and a compression each.
export const compared = () => ['spec', 'other-spec'].map((id) => (
  { title: single(textOf(id) ?? engine.compression)?.title ?? 'As set', compression: textOf(id) }
));

const textOf = (id) => at(id).value.trim() || undefined;

// The gamma of a compression, if it is all that differs from the compression `before`; else null.
export function otherGamma(before, now) {
  const [one, two] = [before, now].map(parts);
  const text = textPart(two);
  const gamma = text?.settings.get('gamma') ?? engine.focus.gamma;
  for (const { settings } of [...one, ...two]) settings.delete('gamma');
  return text && !text.settings.has('keep') && spelled(one) === spelled(two) ? Number(gamma) : null;
}

// The parts of a compression: a name, and settings by key.
const parts = (spec) => spec.toLowerCase().split('+').map((part) => {
  const [name, settings = ''] = part.split(':').map((words) => words.trim());
  return { name, settings: new Map(settings.split(',').filter(Boolean).map((pair) => pair.split('=').map((word) => word.trim()))) };
});

const spelled = (list) => list.map(({ name, settings }) => (
  [name, [...settings].map((pair) => pair.join('=')).join(',')].filter(Boolean).join(':')
)).join('+');

const textPart = (list) => list.find(({ name }) => TEXT.includes(name));
// The default of `keep`; undefined for a method without a budget.
const budgetOf = (name) => (entries.has(name) && !TEXT.includes(name) ? parts(entries.get(name).default)[0].settings.get('keep') : undefined);
const budgetPart = (list) => list.find(({ name }) => budgetOf(name));

// The last valid compression with another value of a setting, in the part to which the slider belongs.
function withSetting(slider, key, value) {
  const list = parts(valid);
  (slider === 'budget' ? budgetPart : textPart)(list).settings.set(key, value);
  return spelled(list);
}

// A method's compression with its default settings.
function spelling(name) {
  // Without a layer, the text-guided sampler prunes nothing.
  if (TEXT.includes(name) && engine.focus.text_layer === null) return `${name}:layer=${engine.layers - 1}`;
  return entries.get(name).default;
}

// The entry of a compression that is a single method; else undefined.
function single(spec) {
  const [{ name }, ...more] = parts(spec);
  return more.length === 0 ? entries.get(name) : undefined;
}

// Sets a text field and its list.
function write(id, list, spec) {
  at(id).value = spec;
  at(list).value = single(spec)?.name ?? '';
  complain(id, '');
}

// Sets the text, the list and the sliders.
function show(spec) {
  valid = spec;
  write('spec', 'method', spec);
  const list = parts(spec);
  const known = list.map(({ name }) => entries.get(name)).filter(Boolean);
  at('method-about').textContent = known.map(({ about, source }) => `${about}${source ? ` (${source})` : ''}.`).join(' ');
  const text = textPart(list)?.settings;
  // The sampler has another limit than gamma.
  at('gamma-row').hidden = !text || text.has('keep');
  at('gamma').value = text?.get('gamma') ?? engine.focus.gamma;
  at('gamma-is').value = at('gamma').valueAsNumber.toFixed(2);
  const layer = text?.get('layer') ?? engine.focus.text_layer;
  at('layer-row').hidden = !text;
  at('layer').value = layer ?? engine.layers - 1;
  at('layer-is').value = layer === null ? 'nowhere' : `${layer} of ${engine.layers}`;
  const budget = budgetPart(list);
  const keep = budget?.settings.get('keep') ?? budgetOf(budget?.name) ?? '';
  // A count is for experts.
  at('budget-row').hidden = !keep.includes('.');
  at('budget').value = keep;
  at('budget-is').value = at('budget').valueAsNumber.toFixed(2);
}
