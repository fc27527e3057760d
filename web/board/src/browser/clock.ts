// The time, to the second, for all that says how long ago something was: the server's, as it made the times that are
// shown. It stands still while what is shown is from before a loss.
import { useSyncExternalStore } from "react";

/** Milliseconds by which clocks may differ: the server says its time in whole seconds, and a moment late. */
const TOLERANCE = 3_000;

const listeners = new Set<() => void>();
let ahead = 0; // milliseconds, of the server's clock
let stopped: number | null = null;
let now = Date.now();
let timer: ReturnType<typeof setInterval> | undefined;

/** What the server's clock shows when this browser's shows that. */
export function atServer(milliseconds: number): number {
  return milliseconds + ahead;
}

/** Asks for the server's time. Without an answer the clock stays as it was. */
export async function setClock(): Promise<void> {
  const asked = Date.now();
  try {
    const response = await fetch(location.pathname, { method: "HEAD", cache: "no-store" });
    const said = Date.parse(response.headers.get("date") ?? "");
    const answered = Date.now();
    if (Number.isNaN(said) || !response.ok) return;
    const difference = said + 500 - (asked + answered) / 2;
    const next = Math.abs(difference) < TOLERANCE + (answered - asked) ? 0 : difference;
    if (Math.abs(next - ahead) < TOLERANCE) return;
    ahead = next;
    tick();
  } catch {
    // It is asked again at the next connection.
  }
}

/** `at`: when what is shown was so, by the server's clock; null while it is up to date. */
export function stopClock(at: number | null): void {
  if (at === stopped) return;
  stopped = at;
  tick();
}

function tick(): void {
  now = atServer(Date.now());
  for (const each of listeners) each();
}

function listen(listener: () => void): () => void {
  listeners.add(listener);
  if (timer === undefined) now = atServer(Date.now()); // while nobody listened it stood still
  timer ??= setInterval(tick, 1_000);
  return () => {
    listeners.delete(listener);
    if (listeners.size > 0) return;
    clearInterval(timer);
    timer = undefined;
  };
}

/** Milliseconds since the epoch: when what is shown is so. Renders again when `of` them are over. */
export function useNow(of = 1_000): number {
  return useSyncExternalStore(listen, () => Math.floor((stopped ?? now) / of) * of);
}

/** The same, and it goes on after a loss. */
export function useRunningNow(of = 1_000): number {
  return useSyncExternalStore(listen, () => Math.floor(now / of) * of);
}
