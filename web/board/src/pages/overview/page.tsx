// What is at work, what needs a look, who works, and what waits.
import { useNow } from "../../clock.ts";
import { BoardOverviewDocument } from "../../gql/graphql.ts";
import { useLive } from "../../live.ts";
import { Failure, Loading } from "../../parts/states.tsx";
import { ActiveRuns } from "./active_runs.tsx";
import { Counts } from "./counts.tsx";
import { Failed, Stuck } from "./trouble.tsx";
import { Queues } from "./queues.tsx";
import { Studies } from "./studies.tsx";
import { Workers } from "./workers.tsx";

const STUDIES = 12;

export function OverviewPage() {
  const since = startOfYesterday(useNow(60_000));
  const { data, error } = useLive(BoardOverviewDocument, { studies: STUDIES, since });
  return (
    <>
      <h1 tabIndex={-1}>Overview</h1>
      {error && <Failure error={error} />}
      {!data && !error && <Loading rows={12} />}
      {data && (
        <>
          <Counts counts={data.runCounts} />
          <div className="columns">
            <ActiveRuns runs={data.active} />
            <div className="column">
              <Stuck runs={data.stuck} />
              <Failed runs={data.failed} since={since} />
            </div>
          </div>
          <Studies studies={data.studies} />
          <div className="columns">
            <Workers workers={data.liveWorkers} />
            <Queues queues={data.queues} />
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
