// The lines of the page: workers below the logical worker or the host that they belong to.
import type { LogicalRecord, Records } from "./records.ts";
import { contains, fits, grouped, inOrder, type Process, type State, type Worker } from "./workers.ts";

export const GROUPINGS = ["logical", "host"] as const;
export type Grouping = (typeof GROUPINGS)[number];
export const KINDS = ["alive", "gone", "unheard", "unrecorded"] as const;
/** Which workers are shown: all that are in this state, or living ones that no record names. */
export type Kind = (typeof KINDS)[number];

export interface Group {
  title: string;
  /** Undefined for hosts, and for what belongs to no logical worker. */
  logical: LogicalRecord | undefined;
  workers: readonly Worker[];
}

export type Line = { id: string; group: Group; worker?: undefined } | { id: string; worker: Worker; group?: undefined };

export interface Lines {
  /** Those of the view, in order. */
  lines: readonly Line[];
  all: ReadonlyMap<string, Line>;
}

const UNRECORDED = "No record names these";
const ORPHANS = "Their logical worker is gone";
const NO_HOST = "Host not known";

export function isOf(worker: Worker, kind: Kind): boolean {
  if (kind === "unrecorded") return worker.record === undefined && worker.state === "alive";
  return worker.state === kind;
}

export function linesOf(
  workers: readonly Worker[],
  { logical }: Records,
  { by, kind, text }: { by: Grouping; kind: Kind | undefined; text: string },
): Lines {
  const lines: Line[] = [];
  const all = new Map<string, Line>();
  for (const [key, group] of groupsOf(workers, logical, by)) {
    const head: Line = { id: `${by} ${key}`, group };
    all.set(head.id, head);
    const members: Line[] = group.workers.map((worker) => ({ id: worker.id, worker }));
    for (const member of members) all.set(member.id, member);
    const fitting = members.filter(({ worker }) => worker && (!kind || isOf(worker, kind)) && fits(worker, text));
    if (
      fitting.length > 0 ||
      (members.length === 0 && !kind && contains([group.title, ...(group.logical?.queues ?? [])], text))
    )
      lines.push(head, ...fitting);
  }
  return { lines, all };
}

/** By title; what belongs nowhere comes last. */
function groupsOf(
  workers: readonly Worker[],
  logical: Records["logical"],
  by: Grouping,
): [key: string, group: Group][] {
  const members = grouped(
    workers,
    by === "host" ? ({ host }) => host ?? "" : (worker) => worker.logical?.id ?? strayKey(worker),
  );
  const keys = by === "host" ? members.keys() : new Set([...logical.keys(), ...members.keys()]);
  return [...keys]
    .map((key): [string, Group] => {
      const record = by === "host" ? undefined : logical.get(key);
      const title = by === "host" ? key || NO_HOST : (record?.name ?? key);
      return [key, { title, logical: record, workers: members.get(key) ?? [] }];
    })
    .sort(([key, one], [otherKey, other]) => rank(key, by) - rank(otherKey, by) || inOrder(one.title, other.title));
}

function strayKey({ record }: Worker): string {
  return record ? ORPHANS : UNRECORDED;
}

function rank(key: string, by: Grouping): number {
  if (by === "host") return Number(key === "");
  return key === UNRECORDED ? 2 : Number(key === ORPHANS);
}

export interface Sum {
  states: Readonly<Record<State, number>>;
  active: number;
  /** The load of its machine as the last of its living processes said it; null where they are on several, or none says. */
  load: readonly number[] | null;
}

export function sumOf(workers: readonly Worker[]): Sum {
  const states = { alive: 0, gone: 0, unheard: 0, unknown: 0 };
  let active = 0;
  let latest: Process | undefined;
  for (const { state, processes } of workers) {
    states[state] += 1;
    for (const process of processes) {
      active += process.activeTasks ?? 0;
      if (process.loadAverage && (!latest || process.lastSeenAt > latest.lastSeenAt)) latest = process;
    }
  }
  const isOneHost = new Set(workers.map(({ host }) => host)).size === 1;
  return { states, active, load: (isOneHost && latest?.loadAverage) || null };
}
