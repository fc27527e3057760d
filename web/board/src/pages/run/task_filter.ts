// What the list of tasks looks for, and its order, from the parameters of the address.
import type { ParameterFilter, TaskFilter, TaskOrder, TaskStatus } from "../../gql/graphql.ts";
import { TASK_STATUSES } from "../../values/statuses.ts";
import { readValue } from "./annotation_value.ts";

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
  parameter: Parameter | null;
  text: string;
  order: Order;
}

export interface Parameter {
  name: string;
  /** JSON, or a text as it stands; empty: any value. */
  value: string;
}

export const ORDERED: Record<Order, TaskOrder> = {
  failed: { field: "SEVERITY", direction: "DESC" },
  path: { field: "PATH", direction: "ASC" },
  slow: { field: "RUN_TIME", direction: "DESC" },
  restarts: { field: "RESTARTS", direction: "DESC" },
};

export function wantedOf(params: URLSearchParams): Wanted {
  const given = new Set((params.get("status") ?? "").split(","));
  const order = params.get("order") ?? "";
  return {
    step: params.get("step"),
    statuses: TASK_STATUSES.filter((status) => given.has(status)),
    parameter: readParameter(params.get("parameter") ?? ""),
    text: params.get("text") ?? "",
    order: order in ORDERS ? (order as Order) : "failed",
  };
}

export function filterOf({ step, statuses, parameter, text }: Wanted): TaskFilter {
  const all: TaskFilter[] = [];
  if (step) all.push({ step: { eq: step } });
  if (statuses.length > 0) all.push({ status: { in: [...statuses] } });
  if (parameter) all.push({ parameter: conditionOf(parameter) });
  for (const word of text.split(/\s+/).filter(Boolean)) {
    const contains = { contains: word, ignoreCase: true };
    all.push({ or: [{ path: contains }, { returnCode: contains }, { workers: { containsAny: [word] } }] });
  }
  return all.length > 0 ? { and: all } : {};
}

/** As it stands in the address: `name`, or `name=value`. */
export function writtenParameter({ name, value }: Parameter): string {
  return value ? `${name}=${value}` : name;
}

function readParameter(written: string): Parameter | null {
  const [name = "", ...rest] = written.split("=");
  return name ? { name, value: rest.join("=") } : null;
}

function conditionOf({ name, value }: Parameter): ParameterFilter {
  if (!value.trim()) return { key: name, exists: true };
  const read = readValue(value);
  if ("value" in read) return { key: name, eq: read.value };
  // null alone would also find the tasks that do not use the parameter; what is no JSON after all is a text.
  return value.trim() === "null" ? { key: name, eq: null, exists: true } : { key: name, eq: value };
}
