// Quiet lists: what is shown keeps its place, whatever comes and goes.
import { useState } from "react";

export interface Slot<T> {
  id: string;
  /** As the server sent it last. */
  row: T;
  /** Whether the server's list has it no more; it stays, marked, until another row takes its place. */
  left: boolean;
}

/**
 * The rows in stable places: a known row keeps its place, a row that left keeps it until a new one takes it, and what
 * finds no such place comes at the end.
 */
export function placed<T>(before: readonly Slot<T>[], rows: readonly T[], idOf: (row: T) => string): Slot<T>[] {
  const byId = new Map(rows.map((row) => [idOf(row), row]));
  const known = new Set(before.map(({ id }) => id));
  const incoming = rows.filter((row) => !known.has(idOf(row))).map((row) => ({ id: idOf(row), row, left: false }));
  const places = before.map((slot) => {
    const row = byId.get(slot.id);
    if (row !== undefined) return { id: slot.id, row, left: false };
    return incoming.shift() ?? { ...slot, left: true };
  });
  return [...places, ...incoming];
}

/** Whether the places are those that the server's order gives. */
export function isSorted<T>(slots: readonly Slot<T>[], rows: readonly T[], idOf: (row: T) => string): boolean {
  return slots.length === rows.length && rows.every((row, index) => slots[index]!.id === idOf(row));
}

export interface Slots<T> {
  slots: readonly Slot<T>[];
  sorted: boolean;
  /** Takes the order of the server, and forgets what left. */
  sort: () => void;
}

/** `rows` has to be the same array as long as nothing changed: else this never comes to an end. */
export function useSlots<T>(rows: readonly T[], idOf: (row: T) => string): Slots<T> {
  const [kept, keep] = useState<{ rows: readonly T[]; slots: readonly Slot<T>[] }>({ rows: [], slots: [] });
  let { slots } = kept;
  if (rows !== kept.rows) {
    slots = placed(slots, rows, idOf);
    keep({ rows, slots }); // React renders anew at once, before anything is shown
  }
  return { slots, sorted: isSorted(slots, rows, idOf), sort: () => keep({ rows, slots: placed([], rows, idOf) }) };
}
