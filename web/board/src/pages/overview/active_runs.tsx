import { href } from "../../browser/address.ts";
import { Expected, useEstimates } from "../../parts/expected.tsx";
import { Meter } from "../../parts/meter.tsx";
import { Empty } from "../../parts/states.tsx";
import { Status } from "../../parts/status.tsx";
import { Ago } from "../../parts/time.tsx";
import { useSlots } from "../../lists/slots.ts";
import type { Overview } from "./data.ts";
import { RunName } from "../../parts/run_name.tsx";
import { Section } from "../../parts/section.tsx";

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
