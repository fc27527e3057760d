// Workers as the page shows them: what Merlin recorded of each, beside what is heard of its processes.
import type { BoardWorkersSubscription } from "../../gql/graphql.ts";
import type { LogicalRecord, PhysicalRecord, Records } from "./records.ts";

export type Process = BoardWorkersSubscription["live"]["liveWorkers"][number];

/**
 * `gone`: its processes were heard, and are not any more. `unheard`: nothing was heard of it since the server began to
 * listen. `unknown`: the server does not hear any worker.
 */
export type State = "alive" | "gone" | "unheard" | "unknown";

export interface Worker {
  id: string;
  /** Celery's, with its host. */
  name: string;
  host: string | null;
  record: PhysicalRecord | undefined;
  logical: LogicalRecord | undefined;
  /** The living ones first; several where Merlin launched it twice. */
  processes: readonly Process[];
  state: State;
}

const { compare } = new Intl.Collator(undefined, { numeric: true });

export { compare as inOrder };

/** Each record as a worker, and each name that is heard and that no record has; by name. */
export function workersOf({ logical, physical }: Records, processes: readonly Process[], isHeard: boolean): Worker[] {
  const heard = grouped(processes, ({ name }) => name);
  const names = new Set<string>();
  const workers: Worker[] = [];
  for (const record of physical.values()) {
    const own = heard.get(record.name) ?? [];
    workers.push({
      id: names.has(record.name) ? `${record.name} ${record.id}` : record.name,
      name: record.name,
      host: record.host ?? own[0]?.host ?? null,
      record,
      logical: record.logicalWorkerId == null ? undefined : logical.get(record.logicalWorkerId),
      processes: own,
      state: stateOf(own, isHeard),
    });
    names.add(record.name);
  }
  for (const [name, own] of heard) {
    if (names.has(name)) continue;
    const [{ host }] = own as [Process];
    workers.push({
      id: name,
      name,
      host,
      record: undefined,
      logical: undefined,
      processes: own,
      state: stateOf(own, isHeard),
    });
  }
  return workers.sort((one, other) => compare(one.name, other.name));
}

function stateOf([first]: readonly Process[], isHeard: boolean): State {
  if (!isHeard) return "unknown";
  if (!first) return "unheard";
  return first.isAlive ? "alive" : "gone";
}

/** Without what stands beside it: Merlin makes Celery's name `celery@NAME.%HOST`. */
export function shortName({ name, host }: Pick<Worker, "name" | "host">): string {
  const short = name.replace(/^celery@/, "");
  const end = [`.%${host}`, `.${host}`].find((each) => host && short.endsWith(each) && short.length > each.length);
  return end ? short.slice(0, -end.length) : short;
}

/** Whether one of the words that people know it by has all that they look for, whatever its case. */
export function fits(worker: Worker, text: string): boolean {
  const { name, host, logical, record, processes } = worker;
  const words = [name, host ?? "", logical?.name ?? "", ...(logical?.queues ?? []), record?.pid ?? ""];
  return contains([...words, ...processes.map(({ pid }) => pid ?? "")], text);
}

export function contains(words: readonly string[], text: string): boolean {
  const sought = text.trim().toLowerCase();
  return !sought || words.some((word) => word.toLowerCase().includes(sought));
}

export function grouped<T>(rows: readonly T[], keyOf: (row: T) => string): Map<string, T[]> {
  const groups = new Map<string, T[]>();
  for (const row of rows) {
    const key = keyOf(row);
    const members = groups.get(key);
    if (members) members.push(row);
    else groups.set(key, [row]);
  }
  return groups;
}
