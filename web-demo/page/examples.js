// The example pictures of the page, and questions about each.

const FOLDER = 'pictures';

// The questions by picture name, in the order of the list.
export async function examples() {
  const lines = (await (await sent(`${FOLDER}/questions.jsonl`)).text()).split('\n').filter(Boolean);
  const pictures = new Map();
  for (const { image, question } of lines.map((line) => JSON.parse(line))) {
    pictures.set(image, [...(pictures.get(image) ?? []), question]);
  }
  return pictures;
}

export const address = (name) => `${FOLDER}/${encodeURIComponent(name)}`;

// The file of a picture.
export async function file(name) {
  return (await sent(address(name))).blob();
}

// The response for an address of the page.
export async function sent(from) {
  const answer = await fetch(from);
  if (!answer.ok) throw new Error(`${from}: expected a file, got status ${answer.status}. Reload the page.`);
  return answer;
}
