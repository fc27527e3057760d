// The rows of a run's samples that are known, by their numbers: those in sight, and as many others as may be kept.

export type Row = readonly unknown[];
export type Known = ReadonlyMap<number, Row>;

/** Rows that are asked for at once. */
export const PAGE = 200;
/** Rows that are kept. */
export const MOST = 5_000;

/** The first row that is not known from one on, so far as another one; null if all are known. */
export function firstMissing(known: Known, from: number, to: number): number | null {
  for (let row = from; row <= to; row++) if (!known.has(row)) return row;
  return null;
}

/** With rows that begin at a number. When there are too many, those are forgotten that are farthest from these. */
export function withRows(known: Known, offset: number, rows: readonly Row[]): Known {
  const all = new Map(known);
  rows.forEach((row, index) => all.set(offset + index, row));
  if (all.size <= MOST) return all;
  const near = [...all.keys()].sort((one, other) => Math.abs(one - offset) - Math.abs(other - offset));
  for (const row of near.slice(MOST)) all.delete(row);
  return all;
}
