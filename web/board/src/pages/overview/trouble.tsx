import { href } from "../../browser/address.ts";
import { RunName } from "../../parts/run_name.tsx";
import { Section } from "../../parts/section.tsx";
import { Empty } from "../../parts/states.tsx";
import { Status } from "../../parts/status.tsx";
import { Ago } from "../../parts/time.tsx";
import { useSession } from "../../api/session.tsx";
import { useSlots } from "../../lists/slots.ts";
import type { Overview } from "./data.ts";

/** Runs that will not go on by themselves. */
export function Stuck({ runs }: { runs: Overview["stuck"] }) {
  const { slots } = useSlots(runs.nodes, ({ id }) => id);
  const sources = useSession()?.database.sources;
  const isKnown = sources?.includes("BROKER_QUEUES") && sources.includes("CELERY_EVENTS");
  return (
    <Section title="Stuck" total={runs.totalCount} all={href(["runs"], { stuck: "yes" })}>
      {slots.length === 0 ? (
        <Empty still>
          {isKnown ? "No run is stuck." : "Not known: this server does not see the queues and the workers."}
        </Empty>
      ) : (
        <ul className="rows still">
          {slots.map(({ id, row, left }) => (
            <li key={id} className={left ? "left" : undefined}>
              <div className="line">
                <RunName run={row} />
                {left ? <span className="none">no longer stuck</span> : <Status status={row.status} />}
                <Ago at={row.launchedAt} />
              </div>
              {!left && (
                <p className="detail">Nothing waits in {row.queues.join(", ") || "its queues"}, and nobody works.</p>
              )}
            </li>
          ))}
        </ul>
      )}
    </Section>
  );
}

/** Runs that failed, or have a failed task, and ended since yesterday. */
export function Failed({ runs, since }: { runs: Overview["failed"]; since: string }) {
  const { slots } = useSlots(runs.nodes, ({ id }) => id);
  const all = href(["runs"], { failed: "yes", finishedAfter: since, order: "FINISHED_AT" });
  return (
    <Section title="Failed since yesterday" total={runs.totalCount} all={all}>
      {slots.length === 0 ? (
        <Empty still>Nothing has failed.</Empty>
      ) : (
        <ul className="rows still">
          {slots.map(({ id, row, left }) => (
            <li key={id} className={left ? "left" : undefined}>
              <div className="line">
                <RunName run={row} />
                {left ? <span className="none">no longer listed</span> : <Status status={row.status} />}
                <Ago at={row.finishedAt} />
              </div>
            </li>
          ))}
        </ul>
      )}
    </Section>
  );
}
