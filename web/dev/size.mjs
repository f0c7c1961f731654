// Fails when the page's scripts outgrow their budget: `npm run size`, after a build.

import { readdir, readFile } from 'node:fs/promises';
import { gzipSync } from 'node:zlib';

const BUDGET_KB = 120;

const folder = new URL('../dist/assets/', import.meta.url);
let bytes = 0;
for (const name of await readdir(folder)) {
  if (name.endsWith('.js')) bytes += gzipSync(await readFile(new URL(name, folder))).length;
}
const kb = bytes / 1024;
console.log(`scripts: ${kb.toFixed(1)} KB of ${BUDGET_KB} KB (gzip)`);
if (kb > BUDGET_KB) process.exit(1);
