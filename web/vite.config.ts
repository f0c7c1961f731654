import { svelte } from '@sveltejs/vite-plugin-svelte';
import { defineConfig } from 'vitest/config';

/** Where the gateway (or the development aid in dev/) listens while the page runs under `npm run dev`. */
const gateway = process.env['TIDEGATE_URL'] ?? 'http://localhost:8000';

export default defineConfig({
  plugins: [svelte()],
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
