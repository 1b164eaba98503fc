// The choice between the engine in this browser and the one of the server that sends this page, if it has one.

import { at, make } from './dom.js';
import { ServerEngine, announced } from './server-engine.js';

// `use` receives a model, { name, server }, or null for the demo model in this browser.
export async function serverChoice(use) {
  const { models, api, key } = await announced();
  at('engine-row').hidden = models.length === 0;
  at('key-row').hidden = !key;
  at('engine').append(...models.map((name) => make('option', { value: name }, `this server: ${name}`)));
  const chosen = () => {
    const model = at('engine').value;
    const server = { create: ({ signal }) => ServerEngine.create({ api, model, key: at('key').value, signal }) };
    use(model ? { name: model, server } : null);
  };
  at('engine').addEventListener('change', chosen);
  at('key').addEventListener('change', () => at('engine').value && chosen());
}

// Shows which engine is used.
export function showChoice(model) {
  at('engine').value = model?.server ? model.name : '';
  at('private').hidden = Boolean(model?.server);
}
