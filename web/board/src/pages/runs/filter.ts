// The filter and the order that the address of the page asks for, as the API takes them.
import type { OrderDirection, RunFilter, RunOrder, RunOrderField, RunStatus } from "../../gql/graphql.ts";
import { RUN_STATUSES } from "../../values/statuses.ts";

export interface View {
  /** Null: all runs. */
  filter: RunFilter | null;
  /** Null: the latest launched first. */
  order: RunOrder | null;
  /** What the address asks for, and the board can't do; the filter leaves it out. */
  problems: string[];
}

/** The parameters of the address that filter runs. */
export const FILTERS = [
  "text",
  "study",
  "status",
  "queue",
  "launchedAfter",
  "launchedBefore",
  "annotation",
  "worker",
  "finished",
  "stuck",
  "failed",
  "finishedAfter",
] as const;

export type FilterName = (typeof FILTERS)[number];

const ORDERS: Record<RunOrderField, OrderDirection> = {
  LAUNCHED_AT: "DESC",
  STARTED_AT: "DESC",
  FINISHED_AT: "DESC",
  DURATION: "DESC",
  STATUS: "ASC",
  WORKSPACE: "ASC",
  ID: "ASC",
};

/** The API's fields, with the direction that is meant where the address says none. */
export const ORDER_FIELDS = Object.keys(ORDERS) as RunOrderField[];

const CHOICES = new Map([
  ["yes", true],
  ["no", false],
]);

export function viewOf(params: URLSearchParams): View {
  const problems: string[] = [];
  const conditions: RunFilter[] = [];
  for (const [name, value] of params) {
    if (!value || name === "order" || name === "direction") continue;
    if (!isFilter(name)) problems.push(`The board knows no filter “${name}”.`);
    else {
      const found = conditionOf(name, value, problems);
      if (found) conditions.push(found);
    }
  }
  const filter = conditions.length > 1 ? { and: conditions } : (conditions[0] ?? null);
  return { filter, order: orderOf(params, problems), problems };
}

/** Of the address, whether or not it is one that the API knows. */
export function statusesOf(params: URLSearchParams): string[] {
  return (params.get("status") ?? "").split(",").filter(Boolean);
}

/** The order that is shown, also where it is the API's own. */
export function orderShown({ order }: View): { field: RunOrderField; direction: OrderDirection } {
  return { field: order?.field ?? "LAUNCHED_AT", direction: order?.direction ?? "DESC" };
}

function isFilter(name: string): name is FilterName {
  return (FILTERS as readonly string[]).includes(name);
}

function conditionOf(name: FilterName, value: string, problems: string[]): RunFilter | null {
  switch (name) {
    case "text":
      return { workspace: { contains: value, ignoreCase: true } };
    case "study":
      return { study: { name: { eq: value } } };
    case "status":
      return statusIn(value.split(",").filter(Boolean), problems);
    case "queue":
      return { queues: { containsAny: [value] } };
    case "worker":
      return { worker: { name: { eq: value } } };
    case "annotation":
      return annotated(value);
    case "launchedAfter":
      return time(value, problems, (at) => ({ launchedAt: { after: at } }));
    case "launchedBefore":
      return time(value, problems, (at) => ({ launchedAt: { before: at } }));
    case "finishedAfter":
      return time(value, problems, (at) => ({ finishedAt: { after: at } }));
    case "finished":
      return choice(name, value, problems, (is) => ({ isFinished: is }));
    case "stuck":
      return choice(name, value, problems, (is) => ({ isStuck: is }));
    case "failed":
      return choice(name, value, problems, (is) => ({ hasFailed: is }));
  }
}

function statusIn(given: string[], problems: string[]): RunFilter | null {
  const known = given.filter((each): each is RunStatus => (RUN_STATUSES as readonly string[]).includes(each));
  for (const each of given) if (!known.includes(each as RunStatus)) problems.push(`No run has a status “${each}”.`);
  return known.length > 0 ? { status: { in: known } } : null;
}

/** `key`, or `key=value`: a value that could be JSON is also looked for as the text that it is. */
function annotated(value: string): RunFilter {
  const at = value.indexOf("=");
  if (at < 0) return { annotation: { key: value, exists: true } };
  const key = value.slice(0, at);
  const text = value.slice(at + 1);
  const asText: RunFilter = { annotation: { key, eq: text } };
  const asJson = parsed(text);
  if (asJson === undefined || asJson === null) return asText;
  return { or: [asText, { annotation: { key, eq: asJson } }] };
}

/** Undefined: no JSON. */
export function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function time(value: string, problems: string[], condition: (at: string) => RunFilter): RunFilter | null {
  const at = Date.parse(value);
  if (!Number.isNaN(at)) return condition(new Date(at).toISOString());
  problems.push(`“${value}” is no time: a time is written like 2026-01-31T08:00:00Z.`);
  return null;
}

function choice(
  name: string,
  value: string,
  problems: string[],
  condition: (is: boolean) => RunFilter,
): RunFilter | null {
  const is = CHOICES.get(value);
  if (is !== undefined) return condition(is);
  problems.push(`The filter “${name}” is yes or no, not “${value}”.`);
  return null;
}

function orderOf(params: URLSearchParams, problems: string[]): RunOrder | null {
  const field = params.get("order") || "LAUNCHED_AT";
  const direction = params.get("direction");
  if (!isOrder(field)) {
    problems.push(`Runs can't be ordered by “${field}”.`);
    return null;
  }
  if (direction && direction !== "ASC" && direction !== "DESC") {
    problems.push(`A direction is ASC or DESC, not “${direction}”.`);
  }
  const wanted = direction === "ASC" || direction === "DESC" ? direction : ORDERS[field];
  return field === "LAUNCHED_AT" && wanted === "DESC" ? null : { field, direction: wanted };
}

function isOrder(field: string): field is RunOrderField {
  return (ORDER_FIELDS as string[]).includes(field);
}
