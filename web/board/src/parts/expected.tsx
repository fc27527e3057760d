import { useRef } from "react";

import { useNow } from "../browser/clock.ts";
import { type Estimate, type Seen, estimate, seenWith } from "../values/rates.ts";
import { duration } from "../values/times.ts";
import { Time } from "./time.tsx";

/** How fast a run proceeds, and when it would end if it went on so. */
export function Expected({ estimate: found }: { estimate: Estimate | null | undefined }) {
  const now = useNow();
  if (!found || found.rate === 0) return null;
  const rate = found.rate >= 10 ? Math.round(found.rate) : Number(found.rate.toPrecision(2));
  return (
    <span className="expected">
      {rate.toLocaleString()}/min
      {found.end !== null && found.end > now && (
        <>
          {" "}
          · ends about <Time at={new Date(found.end).toISOString()} /> (in {duration((found.end - now) / 1000)})
        </>
      )}
    </span>
  );
}

interface Proceeding {
  id: string;
  startedAt?: string | null;
  launchedAt?: string | null;
  progress?: { asOf: string; done: number; total?: number | null } | null;
}

/** By run: what this page saw of the progress, turned into a rate and an expected end. */
export function useEstimates(runs: readonly Proceeding[]): Map<string, Estimate | null> {
  const seen = useRef(new Map<string, Seen[]>());
  const known = new Map<string, Seen[]>();
  const found = new Map<string, Estimate | null>();
  for (const { id, progress, startedAt, launchedAt } of runs) {
    if (!progress) continue;
    const each = seenWith(seen.current.get(id) ?? [], { at: Date.parse(progress.asOf), done: progress.done });
    known.set(id, each);
    found.set(id, estimate(each, progress.total, startedAt ?? launchedAt));
  }
  seen.current = known;
  return found;
}
