// The columns of the list of tasks.
import { href, parse } from "../../browser/address.ts";
import { Status } from "../../parts/status.tsx";
import type { Column } from "../../parts/virtual_table.tsx";
import { duration } from "../../values/times.ts";
import type { Task } from "./data.ts";
import { parametersOf } from "./task_parameters.ts";

/** `now`: what is known of a task by now. `open`: the task that stands open. */
export function columnsOf(now: (task: Task) => Task, open: string | null): Column<Task>[] {
  return [
    { key: "task-state", title: "Status", cell: (task) => <Status status={now(task).status} /> },
    {
      key: "task-path",
      title: "Task",
      cell: ({ id, path, parameters }, { tabIndex }) => (
        <a
          className="mono"
          href={opening(id)}
          tabIndex={tabIndex}
          data-task={id}
          aria-current={id === open ? "true" : undefined}
          title={[path, ...parametersOf(parameters).map((each) => each.join(" = "))].join("\n")}
        >
          {path}
        </a>
      ),
    },
    { key: "task-code", title: "Return code", cell: (task) => <Code code={now(task).returnCode} /> },
    { key: "task-took", title: "Run time", cell: (task) => <Took task={now(task)} /> },
    { key: "task-restarts", title: "Restarts", cell: (task) => <Restarts count={now(task).restarts} /> },
  ];
}

/** The address of this view, with the task open. */
function opening(task: string): string {
  const { path, params } = parse(location.hash);
  return href(path, { ...Object.fromEntries(params), task });
}

function Code({ code }: { code: string | null | undefined }) {
  return <span>{code ? code.replace("MERLIN_", "").replaceAll("_", " ").toLowerCase() : ""}</span>;
}

function Took({ task: { runTime } }: { task: Task }) {
  return runTime == null ? <span className="none">–</span> : <>{duration(runTime)}</>;
}

function Restarts({ count }: { count: number | null | undefined }) {
  if (!count) return null;
  return (
    <>
      {count} <span className="unit">{count === 1 ? "restart" : "restarts"}</span>
    </>
  );
}
