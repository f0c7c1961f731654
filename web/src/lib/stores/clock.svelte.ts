// The time now, once a second, for "3 s ago": it runs only while something reads it.

import { createSubscriber } from 'svelte/reactivity';

class Clock {
  #subscribe = createSubscriber((update) => {
    const timer = setInterval(update, 1_000);
    return () => clearInterval(timer);
  });

  get now_ms(): number {
    this.#subscribe();
    return Date.now();
  }
}

export const clock = new Clock();
