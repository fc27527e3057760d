import { BoardRunWorkersDocument } from "../../gql/graphql.ts";
import { useLive } from "../../api/live.ts";
import { Section } from "../../parts/section.tsx";
import { Empty, Failure, Loading } from "../../parts/states.tsx";
import { Ago } from "../../parts/time.tsx";
import { useSession } from "../../api/session.tsx";
import { MARKS, tone, word } from "../../values/statuses.ts";
import type { Worker } from "./data.ts";

type Process = Worker["physicalWorkers"]["nodes"][number];

/** The workers that the specification names, and the processes of each. */
export function Workers({ run }: { run: string }) {
  const { data, error } = useLive(BoardRunWorkersDocument, { id: run });
  const workers = data?.run?.workers;
  const hears = useSession()?.database.sources.includes("CELERY_EVENTS");
  return (
    <Section title="Workers" total={workers?.length}>
      {error && <Failure error={error} />}
      {!data && !error && <Loading />}
      {workers?.length === 0 && <Empty>It names no workers: a local run, or a dry one.</Empty>}
      {hears === false && workers && workers.length > 0 && (
        <p className="detail">Who is alive is not known: this server does not hear the workers' heartbeats.</p>
      )}
      <ul className="rows processes">
        {workers?.map((worker) => (
          <Logical key={worker.id} worker={worker} />
        ))}
      </ul>
    </Section>
  );
}

function Logical({ worker }: { worker: Worker }) {
  const { totalCount, nodes } = worker.physicalWorkers;
  return (
    <li>
      <div className="line">
        <span className="strong">{worker.name}</span>
        <span className="detail">serves {worker.queues.join(", ")}</span>
      </div>
      {nodes.length === 0 ? (
        <p className="detail">No process was started as this worker.</p>
      ) : (
        <div className="scroll" tabIndex={0} role="region" aria-label={`Processes of ${worker.name}`}>
          <table>
            <thead>
              <tr>
                <th scope="col">Process</th>
                <th scope="col">Alive</th>
                <th scope="col">Tasks now</th>
                <th scope="col">Tasks so far</th>
                <th scope="col">Load</th>
              </tr>
            </thead>
            <tbody>
              {nodes.map((process) => (
                <tr key={process.id}>
                  <th scope="row">{process.name}</th>
                  <td>
                    <Alive process={process} />
                  </td>
                  <td>{process.activeTasks ?? "–"}</td>
                  <td>{process.processedTasks ?? "–"}</td>
                  <td>{process.loadAverage?.[0]?.toFixed(1) ?? "–"}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
      {totalCount > nodes.length && <p className="detail">{totalCount - nodes.length} more are not shown.</p>}
    </li>
  );
}

function Alive({ process: { isAlive, lastSeenAt, status } }: { process: Process }) {
  if (isAlive === true) {
    return (
      <span className={tone("RUNNING")}>
        <span aria-hidden="true">{MARKS.RUNNING}</span> yes
      </span>
    );
  }
  if (isAlive === false) {
    return (
      <>
        <span className={tone("FAILED")}>
          <span aria-hidden="true">{MARKS.FAILED}</span> no
        </span>
        , last heard <Ago at={lastSeenAt} />
      </>
    );
  }
  return <span className="none">not known; recorded as {word(status).toLowerCase()}</span>;
}
