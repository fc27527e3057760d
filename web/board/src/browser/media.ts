import { useSyncExternalStore } from "react";

const NARROW = "(max-width: 48rem)";
const MEDIUM = "(max-width: 72rem)";

/** Whether a row of a table gets more than one line: on a phone, and at 200 % zoom. Style sheets ask the same. */
export function useNarrow(): boolean {
  return useMedia(NARROW);
}

/** Whether a row with much to say gets a second line. Narrow screens are among these. */
export function useMedium(): boolean {
  return useMedia(MEDIUM);
}

function useMedia(media: string): boolean {
  return useSyncExternalStore(media === NARROW ? listenNarrow : listenMedium, () => matchMedia(media).matches);
}

const listenNarrow = listening(NARROW);
const listenMedium = listening(MEDIUM);

function listening(media: string): (onChange: () => void) => () => void {
  return (onChange) => {
    const query = matchMedia(media);
    query.addEventListener("change", onChange);
    return () => query.removeEventListener("change", onChange);
  };
}
