// A development aid: serves the built page and plays invented traffic, with the real gateway's security headers.

import { readFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { extname, join, normalize } from 'node:path';
import { WebSocketServer, type WebSocket } from 'ws';
import { PROTOCOL_VERSION } from '../src/lib/protocol';
import { Traffic, type Scenario } from './traffic';

export type { Scenario };

export const CONTENT_SECURITY_POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "font-src 'self'",
  "img-src 'self'",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
  "require-trusted-types-for 'script'",
  'trusted-types svelte-trusted-html',
].join('; ');

const TYPES: Record<string, string> = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.svg': 'image/svg+xml',
  '.woff2': 'font/woff2',
};

/** The played gateway. Stop it and start another on the same port to play a restart. */
export class PlayedGateway {
  readonly traffic: Traffic;
  #server: Server;
  #sockets: WebSocketServer;
  #timer: NodeJS.Timeout;
  /** While it is mute, streams stay open and nothing comes. */
  mute = false;
  /** The version that it says it speaks. */
  version = PROTOCOL_VERSION;

  private constructor(traffic: Traffic, folder: string) {
    this.traffic = traffic;
    this.#server = createServer((request, response) => {
      const asked = normalize(new URL(request.url ?? '/', 'http://localhost').pathname);
      const path = ['/', '/dashboard', '/certificates'].includes(asked) ? '/index.html' : asked;
      readFile(join(folder, path)).then(
        (body) => {
          response.writeHead(200, {
            'content-type': TYPES[extname(path)] ?? 'application/octet-stream',
            'content-security-policy': CONTENT_SECURITY_POLICY,
            'x-content-type-options': 'nosniff',
          });
          response.end(body);
        },
        () => response.writeHead(404).end(),
      );
    });
    this.#sockets = new WebSocketServer({ server: this.#server, path: '/api/v1/stream' });
    this.#sockets.on('connection', (socket, request) => {
      const after = new URL(request.url ?? '/', 'http://localhost').searchParams.get('after');
      if (this.mute) return;
      const hello = traffic.hello(after === null ? null : Number(after));
      send(socket, { type: 'hello', ...hello, version: this.version });
    });
    this.#timer = setInterval(() => {
      const frame = traffic.frame();
      if (this.mute) return;
      for (const socket of this.#sockets.clients) send(socket, { type: 'frame', ...frame });
    }, 100);
  }

  static async start(scenario: Scenario, folder: string, port = 0, firstId = 0): Promise<PlayedGateway> {
    const gateway = new PlayedGateway(new Traffic(scenario, Date.now(), 7, firstId), folder);
    await new Promise<void>((resolve, reject) => {
      gateway.#server.once('error', reject);
      gateway.#server.listen(port, '127.0.0.1', resolve);
    });
    return gateway;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  get address(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  async stop(): Promise<void> {
    clearInterval(this.#timer);
    for (const socket of this.#sockets.clients) socket.terminate();
    this.#sockets.close();
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}

function send(socket: WebSocket, message: object): void {
  if (socket.readyState === socket.OPEN) socket.send(JSON.stringify(message));
}
