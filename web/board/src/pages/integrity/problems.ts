// Problems and their numbers, as the server tells them: the gravest first, each kind together.
import type { BoardIntegritySubscription, BoardProblemsQuery, ProblemKind, Severity } from "../../gql/graphql.ts";

export type Problem = BoardProblemsQuery["integrity"]["problems"][number];

/** How many there are of one kind and severity, that can be repaired or not. */
export type Count = BoardIntegritySubscription["live"]["integrity"]["counts"][number];

/** Which problems are wanted; null: all. */
export interface Wanted {
  severity: Severity | null;
  kind: ProblemKind | null;
}

export const SEVERITIES: readonly Severity[] = ["ERROR", "WARNING", "INFO"];

/** What is wrong, in a few words; each problem's message says more. */
export const KIND_WORDS: Record<ProblemKind, string> = {
  DANGLING_REFERENCE: "Reference to what does not exist",
  ONE_SIDED_REFERENCE: "Reference that is not returned",
  DUPLICATE_REFERENCE: "Reference that stands twice",
  NAME_INDEX_MISMATCH: "Name map that does not agree",
  DUPLICATE_NAME: "Name that several have",
  UNREADABLE_VALUE: "Value that can't be read",
  MISSING_REFERENCE: "Reference that is missing",
  EMPTY_STUDY: "Study without runs",
  ORPHAN_WORKER: "Worker that nothing names",
  RESURRECTED: "Deleted run that exists again",
  OUTDATED_TABLE: "Table of an older Merlin",
  WRONG_TIME_ZONE: "Time in another time zone",
};

export function totalOf(counts: readonly Count[], { severity, kind }: Wanted): number {
  const wanted = counts.filter((each) => (!severity || each.severity === severity) && (!kind || each.kind === kind));
  return wanted.reduce((total, { count }) => total + count, 0);
}

export interface KindCount {
  kind: ProblemKind;
  count: number;
  repairable: number;
}

/** The kinds that there are, in the order of the problems. */
export function kindsOf(counts: readonly Count[]): KindCount[] {
  const kinds = new Map<ProblemKind, KindCount>();
  for (const { kind, repairable, count } of counts) {
    const known = kinds.get(kind) ?? { kind, count: 0, repairable: 0 };
    known.count += count;
    if (repairable) known.repairable += count;
    kinds.set(kind, known);
  }
  return [...kinds.values()];
}

/** What a list holds: rows in the order of the server, and the numbers as its last page told them. */
export interface Loaded {
  rows: readonly Problem[];
  counts: readonly Count[];
  hasMore: boolean;
}

/**
 * How many problems have come, and how many are gone, where the list is loaded, by what is known: `gone` are rows that
 * are seen to be. Of the kind in which the list ends for now only the difference is known.
 */
export function changesIn(
  loaded: Loaded,
  gone: ReadonlySet<string>,
  now: readonly Count[],
  wanted: Wanted,
): { come: number; gone: number } {
  const found = { come: 0, gone: gone.size };
  const there = loaded.rows.filter(({ id }) => !gone.has(id));
  const last = loaded.hasMore ? loaded.rows.at(-1) : undefined;
  for (const severity of SEVERITIES) {
    if (wanted.severity && severity !== wanted.severity) continue;
    for (const kind of Object.keys(KIND_WORDS) as ProblemKind[]) {
      if (wanted.kind && kind !== wanted.kind) continue;
      const group = { severity, kind };
      const isLast = last?.severity === severity && last.kind === kind;
      const expected = isLast
        ? totalOf(loaded.counts, group)
        : there.filter((each) => each.severity === severity && each.kind === kind).length;
      const difference = totalOf(now, group) - expected;
      if (difference > 0) found.come += difference;
      else found.gone -= difference;
      if (isLast) return found; // what comes after it is not loaded
    }
  }
  return found;
}
