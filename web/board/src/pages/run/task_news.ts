// What a list of tasks would have otherwise by now, were it asked for again.
import { useEffect } from "react";

import type { Pages } from "../../lists/pages.ts";
import { recall, remember } from "../../lists/memory.ts";
import type { Task } from "./data.ts";
import type { TaskRows } from "./task_rows.ts";

type Now = Pick<TaskRows, "matching" | "failed">;

/** In words; null: nothing. The rows stay as they are meanwhile. `memory`: as that of the pages. */
export function useTaskNews(pages: Pages<Task>, now: Now, memory: string): string | null {
  const key = `failed ${memory} ${pages.version}`;
  const counted = failedIn(pages);
  const first = recall<number>(key) ?? now.failed;
  const isKnown = pages.totalCount !== undefined;
  useEffect(() => {
    if (isKnown && counted === undefined && first !== undefined) remember(key, first);
  }, [key, isKnown, counted, first]);
  return pages.isLoading ? null : newsOf(pages.totalCount, counted ?? first, now);
}

/** How many failed tasks the list has, which come first; undefined while it may have more than its rows. */
export function failedIn({ rows, hasMore }: Pick<Pages<Task>, "rows" | "hasMore">): number | undefined {
  const end = rows.findIndex(({ status }) => status !== "FAILED");
  if (end >= 0) return end;
  return hasMore ? undefined : rows.length;
}

/** `total`, `failed`: how many the list has. */
export function newsOf(total: number | undefined, failed: number | undefined, now: Now): string | null {
  if (total === undefined || now.matching === undefined) return null;
  const moreFailed = failed === undefined || now.failed === undefined ? 0 : now.failed - failed;
  const more = now.matching - total;
  if (moreFailed > 0) return `${counted(moreFailed)} more failed: show ${pronoun(moreFailed)}`;
  if (more > 0) return `${counted(more)} more ${more === 1 ? "matches" : "match"}: show ${pronoun(more)}`;
  return moreFailed < 0 || more < 0 ? "Other tasks match, or come first, by now: show them" : null;
}

function counted(count: number): string {
  return count.toLocaleString();
}

function pronoun(count: number): string {
  return count === 1 ? "it" : "them";
}
