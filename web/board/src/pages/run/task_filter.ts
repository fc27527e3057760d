// What the list of tasks looks for, and its order, from the parameters of the address.
import type { TaskFilter, TaskOrder, TaskStatus } from "../../gql/graphql.ts";
import { TASK_STATUSES } from "../../values/statuses.ts";

export const ORDERS = {
  failed: "Failed first",
  path: "As specified",
  slow: "Longest first",
  restarts: "Most restarts first",
} as const;

export type Order = keyof typeof ORDERS;

export interface Wanted {
  step: string | null;
  statuses: readonly TaskStatus[];
  text: string;
  order: Order;
}

/** A part of the list: parts follow each other, each in its order. */
export interface Part {
  filter: TaskFilter;
  orderBy: TaskOrder;
}

export function wantedOf(params: URLSearchParams): Wanted {
  const given = new Set((params.get("status") ?? "").split(","));
  const order = params.get("order") ?? "";
  return {
    step: params.get("step"),
    statuses: TASK_STATUSES.filter((status) => given.has(status)),
    text: params.get("text") ?? "",
    order: order in ORDERS ? (order as Order) : "failed",
  };
}

export function filterOf({ step, statuses, text }: Wanted): TaskFilter {
  const all: TaskFilter[] = [];
  if (step) all.push({ step: { eq: step } });
  if (statuses.length > 0) all.push({ status: { in: [...statuses] } });
  for (const word of text.split(/\s+/).filter(Boolean)) {
    const contains = { contains: word, ignoreCase: true };
    all.push({ or: [{ path: contains }, { returnCode: contains }, { workers: { containsAny: [word] } }] });
  }
  return all.length > 0 ? { and: all } : {};
}

/** The API's order by status is that of a task's life: to have the failed ones first, they are asked for first. */
export function partsOf(wanted: Wanted): Part[] {
  const filter = filterOf(wanted);
  const asSpecified: TaskOrder = { field: "PATH", direction: "ASC" };
  switch (wanted.order) {
    case "path":
      return [{ filter, orderBy: asSpecified }];
    case "slow":
      return [{ filter, orderBy: { field: "RUN_TIME", direction: "DESC" } }];
    case "restarts":
      return [{ filter, orderBy: { field: "RESTARTS", direction: "DESC" } }];
    case "failed": {
      const failed: TaskFilter = { status: { eq: "FAILED" } };
      const all = filter.and ?? [];
      return [
        { filter: { and: [...all, failed] }, orderBy: asSpecified },
        { filter: { and: [...all, { not: failed }] }, orderBy: asSpecified },
      ];
    }
  }
}
