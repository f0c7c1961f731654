import 'uplot/dist/uPlot.min.css';
import './app.css';
import { mount } from 'svelte';
import App from './App.svelte';
import { Router } from './lib/stores/router.svelte';
import { Stream } from './lib/stores/stream.svelte';

const target = document.getElementById('app');
if (!target) throw new Error('index.html has no #app');

const router = new Router();
router.start();
const stream = new Stream();
stream.start();
// Back on the network or back on the screen: no reason to wait for the next attempt.
window.addEventListener('online', () => stream.retryNow());
document.addEventListener('visibilitychange', () => {
  if (!document.hidden) stream.retryNow();
});

mount(App, { target, props: { stream, router } });
