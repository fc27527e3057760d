import { useSyncExternalStore } from "react";

const NARROW = "(max-width: 48rem)";

/** Whether a row of a table gets more than one line: on a phone, and at 200 % zoom. Style sheets ask the same. */
export function useNarrow(): boolean {
  return useSyncExternalStore(listen, () => matchMedia(NARROW).matches);
}

function listen(onChange: () => void): () => void {
  const query = matchMedia(NARROW);
  query.addEventListener("change", onChange);
  return () => query.removeEventListener("change", onChange);
}
