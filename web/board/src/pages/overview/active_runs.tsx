import { useRef } from "react";

import { href } from "../../browser/address.ts";
import { Expected } from "../../parts/expected.tsx";
import { Meter } from "../../parts/meter.tsx";
import { Empty } from "../../parts/states.tsx";
import { Status } from "../../parts/status.tsx";
import { Ago } from "../../parts/time.tsx";
import { type Estimate, type Seen, estimate, seenWith } from "../../values/rates.ts";
import { useSlots } from "../../lists/slots.ts";
import type { Overview } from "./data.ts";
import { RunName } from "../../parts/run_name.tsx";
import { Section } from "../../parts/section.tsx";

type Run = Overview["active"]["nodes"][number];

export function ActiveRuns({ runs }: { runs: Overview["active"] }) {
  const { slots, sorted, sort } = useSlots(runs.nodes, ({ id }) => id);
  const estimates = useEstimates(runs.nodes);
  const all = href(["runs"], { finished: "no" });
  return (
    <Section title="Active runs" total={runs.totalCount} all={all} sort={sorted ? undefined : sort}>
      {slots.length === 0 ? (
        <Empty>No run is active.</Empty>
      ) : (
        <ul className="rows active-runs">
          {slots.map(({ id, row, left }) => (
            <li key={id} className={left ? "left" : undefined}>
              <div className="line">
                <RunName run={row} />
                {left ? <span className="none">no longer active</span> : <Status status={row.status} />}
                {row.isStuck && !left && <span className="strong tone-failed">stuck</span>}
                <Ago at={row.launchedAt} />
              </div>
              {!left && (
                <div className="line">
                  <Meter progress={row.progress} label={`Progress of ${row.study?.name ?? row.workspace}`} />
                  <Expected estimate={estimates.get(id)} />
                </div>
              )}
            </li>
          ))}
        </ul>
      )}
    </Section>
  );
}

/** By run: what this page saw of the progress, turned into a rate and an expected end. */
function useEstimates(runs: readonly Run[]): Map<string, Estimate | null> {
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
