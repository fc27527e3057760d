// What lists remember while another page is shown, so that one comes back to the same place.

const KEPT = 6; // what the list of runs remembers, and the lists of one run
const kept = new Map<string, unknown>();

/** What was remembered last under this key, if it is not forgotten yet. */
export function recall<T>(key: string): T | undefined {
  return kept.get(key) as T | undefined;
}

/** Forgets the oldest keys: a list may have 100,000 rows. */
export function remember(key: string, value: unknown): void {
  kept.delete(key);
  kept.set(key, value);
  for (const oldest of kept.keys()) {
    if (kept.size <= KEPT) break;
    kept.delete(oldest);
  }
}
