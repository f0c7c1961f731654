// The gateway under test: the real one where TIDEGATE_BIN names it, else the played one of dev/.

import { spawn, type ChildProcess } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { PlayedGateway, type Scenario } from '../dev/gateway';

export const DIST = fileURLToPath(new URL('../dist', import.meta.url));

/** The real program, or nothing. */
export const BINARY = process.env['TIDEGATE_BIN'];

const START_WITHIN_MS = 90_000;
const STOP_WITHIN_MS = 15_000;

export interface Gateway {
  readonly address: string;
  start: () => Promise<void>;
  stop: () => Promise<void>;
  /** Stops it for good and removes what it left. */
  remove: () => Promise<void>;
}

/** A gateway with traffic and attacks, started. */
export async function startGateway(): Promise<Gateway> {
  const gateway = BINARY ? await realGateway(BINARY) : await playedGateway('mixed');
  await gateway.start();
  return gateway;
}

/** A played gateway; it keeps its port and the numbers of its events over a restart. */
export async function playedGateway(scenario: Scenario): Promise<Gateway & { played: () => PlayedGateway }> {
  const port = await freePort();
  let played: PlayedGateway | null = null;
  let newest = 0;
  const stop = async () => {
    newest = played?.traffic.newest ?? newest;
    await played?.stop();
    played = null;
  };
  return {
    address: `http://127.0.0.1:${port}`,
    start: async () => {
      played = await PlayedGateway.start(scenario, DIST, port, newest);
    },
    stop,
    remove: stop,
    played: () => {
      if (!played) throw new Error('the played gateway does not run');
      return played;
    },
  };
}

/** `tidegate up --demo` in a temporary folder, on ports of its own. */
async function realGateway(binary: string): Promise<Gateway> {
  const folder = await mkdtemp(join(tmpdir(), 'tidegate-e2e-'));
  const [page, events, mqtt, mqtts] = await Promise.all([freePort(), freePort(), freePort(), freePort()]);
  const listen = { page_port: page, events_port: events, mqtt_port: mqtt, mqtts_port: mqtts };
  const lines = Object.entries(listen).map(([key, value]) => `${key} = ${value}`);
  await writeFile(join(folder, 'tidegate.toml'), `[listen]\n${lines.join('\n')}\n`);
  const address = `http://127.0.0.1:${page}`;
  let child: ChildProcess | null = null;

  const stop = async () => {
    const running = child;
    child = null;
    if (!running || running.exitCode !== null) return;
    const ended = new Promise((resolve) => running.once('exit', resolve));
    const hard = setTimeout(() => running.kill('SIGKILL'), STOP_WITHIN_MS);
    running.kill('SIGTERM');
    await ended;
    clearTimeout(hard);
  };
  return {
    address,
    start: async () => {
      const started = spawn(binary, ['--dir', folder, 'up', '--demo'], {
        stdio: ['ignore', 'ignore', 'pipe'],
      });
      child = started;
      let said = '';
      started.stderr.on('data', (chunk: Buffer) => (said = (said + chunk.toString()).slice(-4_000)));
      await answering(address, started, () => said);
    },
    stop,
    remove: async () => {
      await stop();
      await rm(folder, { recursive: true, force: true });
    },
  };
}

async function answering(address: string, child: ChildProcess, said: () => string): Promise<void> {
  const until = Date.now() + START_WITHIN_MS;
  while (Date.now() < until) {
    if (child.exitCode !== null) throw new Error(`tidegate ended with ${child.exitCode}:\n${said()}`);
    const answer = await fetch(address).catch(() => null);
    if (answer?.ok) return;
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  throw new Error(`tidegate did not answer at ${address}:\n${said()}`);
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}
