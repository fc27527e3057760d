// Problems as the page shows them: the gravest first, each kind together.
import type { BoardIntegritySubscription, ProblemKind, Severity } from "../../gql/graphql.ts";

type Told = BoardIntegritySubscription["live"]["integrity"]["problems"][number];

export interface Problem extends Told {
  id: string;
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

export function idOf({
  kind,
  entityKind,
  entityId,
  field,
  otherId,
  message,
}: Omit<Told, "severity" | "repairable">): string {
  return [kind, entityKind, entityId, field, otherId, message].join("\n");
}

/** By severity, then by kind; within a kind in the server's order. */
export function problemsOf(told: readonly Told[]): Problem[] {
  const kinds = Object.keys(KIND_WORDS);
  const rank = ({ severity, kind }: Told) => SEVERITIES.indexOf(severity) * kinds.length + kinds.indexOf(kind);
  return told.map((each) => ({ ...each, id: idOf(each) })).sort((one, other) => rank(one) - rank(other));
}

export interface KindCount {
  kind: ProblemKind;
  count: number;
  repairable: number;
}

/** The kinds that there are, in the order of the problems. */
export function kindsOf(problems: readonly Problem[]): KindCount[] {
  const counts = new Map<ProblemKind, KindCount>();
  for (const { kind, repairable } of problems) {
    const count = counts.get(kind) ?? { kind, count: 0, repairable: 0 };
    count.count += 1;
    count.repairable += Number(repairable);
    counts.set(kind, count);
  }
  return [...counts.values()];
}
