// What the reader chose on this machine: theme, and whether single keys are shortcuts.

export type Theme = 'auto' | 'light' | 'dark';

const THEMES: readonly Theme[] = ['auto', 'light', 'dark'];

function stored(key: string): string | null {
  try {
    return localStorage.getItem(`tidegate.${key}`);
  } catch {
    return null;
  }
}

function store(key: string, value: string): void {
  try {
    localStorage.setItem(`tidegate.${key}`, value);
  } catch {
    // Without storage the choice lasts until the page is left.
  }
}

class Preferences {
  theme = $state<Theme>(THEMES.find((theme) => theme === stored('theme')) ?? 'auto');
  /** Single keys such as `/` and `j` act as shortcuts (WCAG 2.1.4: they can be turned off). */
  shortcuts = $state(stored('shortcuts') !== 'off');

  setTheme(theme: Theme): void {
    this.theme = theme;
    store('theme', theme);
    if (theme === 'auto') delete document.documentElement.dataset['theme'];
    else document.documentElement.dataset['theme'] = theme;
  }

  nextTheme(): void {
    const next = THEMES[(THEMES.indexOf(this.theme) + 1) % THEMES.length];
    this.setTheme(next ?? 'auto');
  }

  setShortcuts(on: boolean): void {
    this.shortcuts = on;
    store('shortcuts', on ? 'on' : 'off');
  }
}

export const preferences = new Preferences();
