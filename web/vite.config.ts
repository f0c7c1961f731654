import { svelte } from '@sveltejs/vite-plugin-svelte';
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { brotliCompressSync, gzipSync } from 'node:zlib';
import type { Plugin } from 'vite';
import { defineConfig } from 'vitest/config';

/** Where the gateway (or the development aid in dev/) listens while the page runs under `npm run dev`. */
const gateway = process.env['TIDEGATE_URL'] ?? 'http://localhost:8000';

/** Writes a `.br` and a `.gz` beside every text of the build: the gateway sends them as they are. */
function precompressed(): Plugin {
  let folder = '';
  return {
    name: 'precompressed',
    apply: 'build',
    configResolved(config) {
      folder = join(config.root, config.build.outDir);
    },
    async closeBundle() {
      const names = await readdir(folder, { recursive: true });
      for (const name of names.filter((each) => /\.(html|js|css|svg)$/.test(each))) {
        const text = await readFile(join(folder, name));
        await writeFile(join(folder, `${name}.br`), brotliCompressSync(text));
        await writeFile(join(folder, `${name}.gz`), gzipSync(text, { level: 9 }));
      }
    },
  };
}

export default defineConfig({
  plugins: [svelte(), precompressed()],
  build: {
    target: 'es2022',
    // Every asset is a file of our own: the page's Content-Security-Policy allows no data: addresses.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
  server: {
    proxy: { '/api': { target: gateway, ws: true, changeOrigin: true, rewriteWsOrigin: true } },
  },
  test: {
    projects: [
      {
        extends: true,
        // Components are tested as the browser runs them, not as a server would render them.
        resolve: { conditions: ['browser'] },
        test: { name: 'unit', environment: 'happy-dom', include: ['src/**/*.test.ts', 'dev/**/*.test.ts'] },
      },
      {
        test: {
          name: 'e2e',
          environment: 'node',
          include: ['e2e/**/*.test.ts'],
          testTimeout: 60_000,
          hookTimeout: 120_000,
          fileParallelism: false,
        },
      },
    ],
  },
});
