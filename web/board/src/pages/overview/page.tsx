// What is at work, what needs a look, who works, and what waits.
import { useNow } from "../../browser/clock.ts";
import { BoardHostsDocument, BoardOverviewDocument } from "../../gql/graphql.ts";
import { useLive } from "../../api/live.ts";
import { Failure, Loading } from "../../parts/states.tsx";
import { ActiveRuns } from "./active_runs.tsx";
import { Counts } from "./counts.tsx";
import { Failed, Stuck } from "./trouble.tsx";
import { Queues } from "./queues.tsx";
import { Studies } from "./studies.tsx";
import { Workers } from "./workers.tsx";

import "./page.css";

export function OverviewPage() {
  const since = startOfYesterday(useNow(60_000));
  const { data, error } = useLive(BoardOverviewDocument, { since });
  const hosts = useLive(BoardHostsDocument, {});
  return (
    <>
      <h1 tabIndex={-1}>Overview</h1>
      {error && <Failure error={error} />}
      {!data && !error && <Loading rows={12} />}
      {data && (
        <>
          <Counts counts={data.runCounts} />
          <div className="overview">
            <div>
              <Studies studies={data.studies} />
              <ActiveRuns runs={data.active} />
            </div>
            <div>
              <Stuck runs={data.stuck} />
              <Failed runs={data.failed} since={since} />
              <Queues queues={data.queues} />
              {hosts.data && <Workers workers={hosts.data.liveWorkers} />}
              {hosts.error && <Failure error={hosts.error} />}
            </div>
          </div>
        </>
      )}
    </>
  );
}

/** In the viewer's zone. */
function startOfYesterday(now: number): string {
  const day = new Date(now);
  day.setDate(day.getDate() - 1);
  day.setHours(0, 0, 0, 0);
  return day.toISOString();
}
