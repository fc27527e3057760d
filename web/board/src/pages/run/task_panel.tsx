import { type KeyboardEvent, useEffect, useRef } from "react";
import { useQuery } from "urql";

import { change, useAddress } from "../../browser/address.ts";
import { BoardTaskDocument, BoardTaskFilesDocument, type LogStream } from "../../gql/graphql.ts";
import { useLive } from "../../api/live.ts";
import { Copy } from "../../parts/copy.tsx";
import { Failure, Loading } from "../../parts/states.tsx";
import { Status } from "../../parts/status.tsx";
import { duration } from "../../values/times.ts";
import type { Run, Task } from "./data.ts";
import { Log } from "./log.tsx";
import { parametersOf } from "./task_parameters.ts";

const STREAMS: Record<LogStream, string> = {
  STDOUT: "Output",
  STDERR: "Errors",
  SCRIPT: "Script",
  RESTART_STDOUT: "Restart output",
  RESTART_STDERR: "Restart errors",
};

interface Props {
  run: Run;
  id: string;
  close: () => void;
}

/** One task with all that is known of it. Give it a `key` of the task. */
export function TaskPanel({ run, id, close }: Props) {
  const { params } = useAddress();
  const { data, error } = useLive(BoardTaskDocument, { id });
  const task = data?.task;
  const heading = useRef<HTMLHeadingElement>(null);
  useEffect(() => heading.current?.focus(), []);
  const given = params.get("stream") ?? "";
  const stream = Object.hasOwn(STREAMS, given) ? (given as LogStream) : "STDOUT";
  const escape = (event: KeyboardEvent) => event.key === "Escape" && close();
  return (
    <section className="task-panel" aria-label="Open task" onKeyDown={escape}>
      <div className="section-head">
        <h2 ref={heading} tabIndex={-1}>
          {task ? task.path : "Task"}
        </h2>
        <button onClick={close}>Close</button>
      </div>
      {error && <Failure error={error} />}
      {!data && !error && <Loading rows={6} />}
      {data && !task && (
        <p role="status">
          There is no such task: the server can no longer read the workspace, or the address is wrong.
        </p>
      )}
      {task && (
        <>
          <Facts run={run} task={task} />
          <Output run={run.id} task={task} stream={stream} />
        </>
      )}
    </section>
  );
}

function Facts({ run, task }: { run: Run; task: Task }) {
  const path = `${run.workspace.replace(/\/+$/, "")}/${task.path}`;
  const parameters = parametersOf(task.parameters);
  return (
    <dl className="facts">
      <Fact name="Status">
        <Status status={task.status} />
      </Fact>
      <Fact name="Step">{task.step}</Fact>
      {task.returnCode && (
        <Fact name="Return code">
          <code>{task.returnCode}</code>
        </Fact>
      )}
      {task.runTime != null && <Fact name="Run time">{duration(task.runTime)}</Fact>}
      {!!task.restarts && <Fact name="Restarts">{task.restarts}</Fact>}
      {!!task.restarts && task.elapsed != null && <Fact name="All tries">{duration(task.elapsed)}</Fact>}
      {task.sampleIndex != null && <Fact name="Sample">{task.sampleIndex.toLocaleString()}</Fact>}
      {task.workers.length > 0 && (
        <Fact name={task.workers.length === 1 ? "Worker" : "Workers"}>{task.workers.join(", ")}</Fact>
      )}
      {parameters.map(([name, value]) => (
        <Fact key={name} name={name}>
          <code>{value}</code>
        </Fact>
      ))}
      <div className="wide">
        <dt>Directory</dt>
        <dd className="copied">
          <code>{path}</code> <Copy text={path} label="the path of the directory" />
        </dd>
      </div>
    </dl>
  );
}

function Fact({ name, children }: { name: string; children: React.ReactNode }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </div>
  );
}

function Output({ run, task, stream }: { run: string; task: Task; stream: LogStream }) {
  const [{ data }, ask] = useQuery({ query: BoardTaskFilesDocument, variables: { id: task.id } });
  const asked = useRef(task.status);
  useEffect(() => {
    if (asked.current === task.status) return; // it may have begun a file
    asked.current = task.status;
    ask();
  }, [task.status, ask]);
  const files = data?.task;
  const offered = (Object.keys(STREAMS) as LogStream[]).filter(
    (each) => !each.startsWith("RESTART") || each === stream || files?.[each],
  );
  return (
    <>
      <fieldset className="toggles">
        <legend>File</legend>
        {offered.map((each) => (
          <label key={each} className="toggle">
            <input
              type="radio"
              name="stream"
              checked={each === stream}
              onChange={() => change({ stream: each === "STDOUT" ? null : each })}
            />
            <span>
              {STREAMS[each]} <span className="muted">{files && sizeOf(files[each]?.size)}</span>
            </span>
          </label>
        ))}
      </fieldset>
      <Log
        key={stream}
        run={run}
        task={task.id}
        stream={stream}
        exists={files ? Boolean(files[stream]) : undefined}
        appear={() => ask()}
      />
    </>
  );
}

/** As it was when the panel was opened, or the status changed. */
function sizeOf(size: number | undefined): string {
  if (size === undefined) return "none";
  return size === 0 ? "empty" : "";
}
