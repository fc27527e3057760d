// Long lists that stay where they are: no row comes, goes or moves while somebody reads, unless they ask for it.
import { useState } from "react";

import { isSorted, type Slot } from "./slots.ts";

export interface Held<T> {
  slots: readonly Slot<T>[];
  /** How many rows belong to the view that are not shown yet. */
  news: number;
  /** Whether the places are those that the present order gives. */
  sorted: boolean;
  /** Shows them, takes the present order, and forgets what left. */
  renew: () => void;
}

/** The same rows in the same places; a row that is gone stays as it was last, marked. */
export function held<T>(before: readonly Slot<T>[], all: ReadonlyMap<string, T>): Slot<T>[] {
  return before.map((slot) => {
    const row = all.get(slot.id);
    return row === undefined ? { ...slot, left: true } : { id: slot.id, row, left: false };
  });
}

/**
 * `view`: what decides which rows belong there; another one shows its rows at once. `rows`: those, in order. `all`: also
 * those that are shown and belong there no more. Both have to be the same objects as long as nothing changed.
 */
export function useHeld<T extends { id: string }>(
  view: string,
  rows: readonly T[],
  all: ReadonlyMap<string, T>,
): Held<T> {
  const fresh = () => ({ view, rows, all, slots: rows.map((row): Slot<T> => ({ id: row.id, row, left: false })) });
  const [kept, keep] = useState(fresh);
  let { slots } = kept;
  if (kept.view !== view || kept.slots.length === 0 ? kept.rows !== rows : kept.all !== all || kept.rows !== rows) {
    const next = kept.view !== view || kept.slots.length === 0 ? fresh() : { view, rows, all, slots: held(slots, all) };
    slots = next.slots;
    keep(next); // React renders anew at once, before anything is shown
  }
  const shown = new Set(slots.map(({ id }) => id));
  const news = rows.reduce((count, { id }) => count + Number(!shown.has(id)), 0);
  return { slots, news, sorted: isSorted(slots, rows, ({ id }) => id), renew: () => keep(fresh()) };
}
