// Which GGUF files of a folder or a repository are a checkpoint: a text model, and its mmproj file with the vision tower and the
// projector. The command line has the same rule (`runtime/src/gguf/files.rs`).

import { unlike } from './error.js';

// The types of mmproj files, the best one first.
const PREFERRED = ['F16', 'BF16', 'F32', 'Q8_0'];
// The quantisation at the end of a name, such as Q4_K_M.
const QUANTISATION = /^(?:.*[._-])?((?:FP?|BF|I?Q|TQ|MXFP|NVFP)\d\w*)$/i;
// A file in several parts.
const PART = /-\d{5}-of-\d{5}\.gguf$/i;

// Whether a file of the folder itself is in GGUF.
export const isGguf = (name) => /^[^/\\]+\.gguf$/i.test(name);

const isMmproj = (name) => /mmproj/i.test(name);
const stem = (name) => name.replace(/\.gguf$/i, '');
const quantisation = (name) => QUANTISATION.exec(stem(name))?.[1].toUpperCase().replace(/^FP/, 'F');

// The text model and the mmproj file of `files`. `wanted` are names of files, or parts of them such as Q4_K_M, for one or both.
// Two files are taken as they are, because their headers say which is which.
//
// Errors: `checkpoint` if it is not clear which files these are; `where` is the name of the folder in the message, and `todo` says
// how to choose.
export function choose(files, wanted, where, todo) {
  if (wanted.length === 0 && files.length === 2) return files;
  return [false, true].map((mmproj) => {
    const what = mmproj ? 'mmproj file' : 'text model';
    const named = wanted.filter((name) => isMmproj(name) === mmproj);
    if (named.length > 1) throw unlike('checkpoint', where, `at most one name of a ${what}`, named.join(', '));
    let found = files.filter((file) => isMmproj(file) === mmproj);
    if (named.length === 1) {
      found = matching(found, named[0]);
    } else if (mmproj) {
      found = PREFERRED.map((type) => found.filter((file) => quantisation(file) === type)).find((same) => same.length > 0) ?? found;
    }
    if (found.length > 0 && found.every((file) => PART.test(file))) {
      throw unlike('checkpoint', where, `one ${what} in one file`, found.join(', '), 'Join the parts with `llama-gguf-split --merge`.');
    }
    if (found.length === 1) return found[0];
    const expected = `one ${what}${named.map((name) => ` with the name \`${name}\``)}`;
    throw unlike('checkpoint', where, expected, found.length || 'none', `The GGUF files are ${files.join(', ') || 'none'}. ${todo}`);
  });
}

// The file of exactly this name; or else the files whose names differ only in upper and lower case; or else the files
// whose names contain it between separators: Q4_K is not Q4_K_M.
function matching(files, wanted) {
  if (files.includes(wanted)) return [wanted];
  const same = files.filter((file) => file.toUpperCase() === wanted.toUpperCase());
  const part = new RegExp(`(?:^|[._-])${stem(wanted).replace(/[^\w]/g, '\\$&')}(?:[.-]|$)`, 'i');
  return same.length > 0 ? same : files.filter((file) => part.test(stem(file)));
}
