// A development aid: `npm run dev:gateway [scenario] [port]` plays invented traffic for the page.

import { fileURLToPath } from 'node:url';
import { runnerImport } from 'vite';

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const { module: gateway } = await runnerImport(here('./gateway.ts'));
const { module: traffic } = await runnerImport(here('./traffic.ts'));

const [scenario = 'mixed', port = '8000'] = process.argv.slice(2);
if (!traffic.SCENARIOS.includes(scenario)) {
  console.error(`no scenario '${scenario}'; there are ${traffic.SCENARIOS.join(', ')}`);
  process.exit(2);
}
const played = await gateway.PlayedGateway.start(scenario, here('../dist'), Number(port));
console.log(`invented traffic (${scenario}) at ${played.address}`);
