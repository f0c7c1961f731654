// Which page an address names, and the address of a page with what it is asked to show.

export type PageName = 'overview' | 'certificates';

/** The pages, in the order of the navigation. */
export const PAGES: readonly { name: PageName; path: string; label: string }[] = [
  { name: 'overview', path: '/', label: 'Overview' },
  { name: 'certificates', path: '/certificates', label: 'Certificates' },
];

/** What a page is asked to show: the parameters behind the question mark. */
export type Query = Readonly<Record<string, string>>;

export interface Route {
  page: PageName;
  query: Query;
}

/** The longest parameter that is read, in characters. */
const LONGEST_VALUE = 200;
/** The most parameters that are read. */
const MOST_VALUES = 16;

/** Reads an address. One that names no page is the overview's, as `/dashboard` is. */
export function routeOf(pathname: string, search: string): Route {
  const page = PAGES.find(({ path }) => path === pathname)?.name ?? 'overview';
  const entries = [...new URLSearchParams(search)].slice(0, MOST_VALUES);
  return {
    page,
    query: Object.fromEntries(entries.map(([name, value]) => [name, value.slice(0, LONGEST_VALUE)])),
  };
}

/** The address of a page; parameters without a value are left out. */
export function addressOf(page: PageName, query: Query = {}): string {
  const path = PAGES.find(({ name }) => name === page)?.path ?? '/';
  const search = new URLSearchParams(Object.entries(query).filter(([, value]) => value !== ''));
  return search.size > 0 ? `${path}?${search}` : path;
}
