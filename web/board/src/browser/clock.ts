// The time of this browser, to the second, for all that says how long ago something was.
import { useSyncExternalStore } from "react";

const listeners = new Set<() => void>();
let now = Date.now();
let timer: ReturnType<typeof setInterval> | undefined;

function listen(listener: () => void): () => void {
  listeners.add(listener);
  if (timer === undefined) now = Date.now(); // while nobody listened it stood still
  timer ??= setInterval(() => {
    now = Date.now();
    for (const each of listeners) each();
  }, 1_000);
  return () => {
    listeners.delete(listener);
    if (listeners.size > 0) return;
    clearInterval(timer);
    timer = undefined;
  };
}

/** Milliseconds since the epoch; the component is rendered again when `of` them are over. */
export function useNow(of = 1_000): number {
  return useSyncExternalStore(listen, () => Math.floor(now / of) * of);
}
