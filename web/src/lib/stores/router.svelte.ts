// The address line as state: links and the browser's back and forward lead from page to page.

import { addressOf, routeOf, type PageName, type Query, type Route } from '../route';

/** A page's state goes into the address this long after it changed: browsers limit how often it may. */
const NOTE_AFTER_MS = 250;

export class Router {
  #route = $state.raw<Route>({ page: 'overview', query: {} });
  /** Rises with every move that a reader made, and not when a page writes down its own state. */
  moves = $state(0);
  #noted: { page: PageName; query: Query } | null = null;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor() {
    this.#read();
  }

  get page(): PageName {
    return this.#route.page;
  }

  get query(): Query {
    return this.#route.query;
  }

  /** Follows back and forward until the page is left. */
  start(): void {
    window.addEventListener('popstate', () => {
      this.#noted = null;
      this.#read();
      this.moves += 1;
    });
  }

  /** Goes to a page, as a link does. */
  go(page: PageName, query: Query = {}): void {
    this.#move(addressOf(page, query));
  }

  /** Writes what a page shows into the address, soon, so that the address can be passed on. */
  note(page: PageName, query: Query): void {
    this.#noted = { page, query };
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#write(), NOTE_AFTER_MS);
  }

  /** Takes a click on a link to one of the pages, so that nothing is loaded again. */
  click(event: MouseEvent): void {
    const plain = event.button === 0 && !event.ctrlKey && !event.metaKey && !event.shiftKey && !event.altKey;
    if (!plain || event.defaultPrevented || !(event.target instanceof Element)) return;
    const link = event.target.closest('a[data-page]');
    if (!(link instanceof HTMLAnchorElement) || link.origin !== window.location.origin) return;
    event.preventDefault();
    this.#move(link.pathname + link.search);
  }

  #write(): void {
    clearTimeout(this.#timer);
    const noted = this.#noted;
    this.#noted = null;
    // A page that was left has nothing to say any more.
    if (!noted || noted.page !== this.page) return;
    const address = addressOf(noted.page, noted.query);
    if (address === window.location.pathname + window.location.search) return;
    window.history.replaceState(null, '', address);
    this.#read();
  }

  #move(address: string): void {
    this.#write();
    if (address !== window.location.pathname + window.location.search) {
      window.history.pushState(null, '', address);
    }
    this.#read();
    this.moves += 1;
    window.scrollTo(0, 0);
  }

  #read(): void {
    this.#route = routeOf(window.location.pathname, window.location.search);
  }
}
