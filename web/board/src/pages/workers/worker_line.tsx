import { Status } from "../../parts/status.tsx";
import { Ago } from "../../parts/time.tsx";
import type { Grouping } from "./groups.ts";
import { type Process, shortName, type State, type Worker } from "./workers.ts";

const MARKS: Record<State, string> = { alive: "✓", gone: "✕", unheard: "?", unknown: "?" };
const WORDS: Record<State, string> = { alive: "Alive", gone: "Gone", unheard: "Not heard", unknown: "Not known" };
const REASONS: Partial<Record<State, string>> = {
  unheard: "Nothing was heard of it since this server began to listen",
  unknown: "This server does not hear the workers' heartbeats",
};

/** A worker: whether it is alive and since when, what it does, and what Merlin recorded where that says less. */
export function WorkerLine({ worker, by, left }: { worker: Worker; by: Grouping; left: boolean }) {
  const { host, record, logical, processes, state } = worker;
  const [first, ...others] = processes;
  const beside =
    by === "host" ? (logical?.name ?? (record ? "logical worker gone" : "no record")) : (host ?? "host not known");
  return (
    <div className={`worker-line${left ? " left" : ""}`}>
      <span className="who">
        <span className="mono">{shortName(worker)}</span> <span className="muted">{beside}</span>
      </span>
      <span className={`status tone-worker-${state}`} title={REASONS[state]}>
        <span aria-hidden="true">{MARKS[state]}</span> {left ? "No longer known" : WORDS[state]}
        {first && !left && (
          <span className="heard">
            {" "}
            heard <Ago at={first.lastSeenAt} />
          </span>
        )}
      </span>
      <Doing process={first} />
      {record && state !== "alive" ? (
        <span className="recorded" title="What Merlin wrote last: no proof that a worker is alive or dead">
          recorded as <Status status={record.recorded} />
        </span>
      ) : (
        <Load process={by === "logical" ? first : undefined} />
      )}
      <Pid pid={first ? first.pid : record?.pid} />
      {others.map((process) => (
        <span key={process.pid} className="also">
          <span className="muted">{process.isAlive ? "also alive" : "before it"}</span>
          <Doing process={process} />
          <Load process={process} />
          <Pid pid={process.pid} />
          {!process.isAlive && (
            <span>
              heard <Ago at={process.lastSeenAt} />
            </span>
          )}
        </span>
      ))}
    </div>
  );
}

function Doing({ process }: { process: Process | undefined }) {
  const { activeTasks, processedTasks } = process ?? {};
  return (
    <>
      <span className="numbers">{activeTasks == null ? "" : `${activeTasks.toLocaleString()} at work`}</span>
      <span className="numbers" title="Tasks since its start">
        {processedTasks == null ? "" : `${processedTasks.toLocaleString()} begun`}
      </span>
    </>
  );
}

function Load({ process }: { process: Process | undefined }) {
  const load = process?.loadAverage;
  return (
    <span className="numbers" title="The load of its host over 1, 5 and 15 minutes">
      {load && `load ${load.map((each) => each.toFixed(1)).join(" · ")}`}
    </span>
  );
}

function Pid({ pid }: { pid: string | null | undefined }) {
  return <span className="numbers">{pid != null && `pid ${pid}`}</span>;
}
