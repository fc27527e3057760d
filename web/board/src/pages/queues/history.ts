// What waited in each queue while this page was open, for ten minutes at most.
import { useRef } from "react";

import { useNow } from "../../browser/clock.ts";
import type { Queue } from "./queues.ts";

export interface Point {
  /** Milliseconds since the epoch. */
  at: number;
  waiting: number;
}

export const EVERY = 5_000;
const WINDOW = 600_000;

/** Adds what waits now; forgets queues that are gone, and what is older than the window. */
export function observed(
  before: ReadonlyMap<string, readonly Point[]>,
  queues: readonly Queue[],
  now: number,
): Map<string, readonly Point[]> {
  const after = new Map<string, readonly Point[]>();
  for (const { queue, waiting } of queues) {
    if (waiting == null) continue;
    const points = (before.get(queue) ?? []).filter(({ at }) => at > now - WINDOW && at < now);
    after.set(queue, [...points, { at: now, waiting }]);
  }
  return after;
}

export function useHistory(queues: readonly Queue[]): { points: ReadonlyMap<string, readonly Point[]>; now: number } {
  const now = useNow(EVERY);
  const kept = useRef({ now: 0, points: new Map<string, readonly Point[]>() });
  if (kept.current.now !== now) kept.current = { now, points: observed(kept.current.points, queues, now) };
  return kept.current;
}
