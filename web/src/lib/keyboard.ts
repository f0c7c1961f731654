// Single keys as shortcuts: only where no text is being written and no dialog is open.

export type Shortcut = 'search' | 'next' | 'previous' | 'pause' | 'overview' | 'certificates' | 'help';

const KEYS: Record<string, Shortcut> = {
  '/': 'search',
  j: 'next',
  k: 'previous',
  p: 'pause',
  o: 'overview',
  c: 'certificates',
  '?': 'help',
};

/** What the help lists. */
export const KEY_HELP: readonly { keys: readonly string[]; does: string }[] = [
  { keys: ['/'], does: 'Search the events, or the certificates' },
  { keys: ['j', 'k'], does: 'Next and previous event' },
  { keys: ['Enter'], does: 'Open the event' },
  { keys: ['Esc'], does: 'Close it, and go on live' },
  { keys: ['p'], does: 'Pause the list, or go on' },
  { keys: ['o', 'c'], does: 'Overview, Certificates' },
  { keys: ['?'], does: 'This help' },
];

/** The shortcut that this key stands for here, or null. */
export function shortcutOf(event: KeyboardEvent): Shortcut | null {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return null;
  if (event.target instanceof Element && event.target.closest('input, textarea, select, dialog')) return null;
  return Object.hasOwn(KEYS, event.key) ? (KEYS[event.key] ?? null) : null;
}
