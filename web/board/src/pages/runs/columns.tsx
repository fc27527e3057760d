// The columns of the list, and how a run is shown in each.
import { useNow } from "../../browser/clock.ts";
import { Meter } from "../../parts/meter.tsx";
import { RunName } from "../../parts/run_name.tsx";
import { Status } from "../../parts/status.tsx";
import { Time } from "../../parts/time.tsx";
import type { Column } from "../../parts/virtual_table.tsx";
import { duration } from "../../values/times.ts";
import type { Run } from "./data.ts";
import type { LiveRow } from "./live_rows.ts";
import type { Selection } from "./selection.ts";

/** `now`: what is known of a run by now. Without a selection, nothing can be selected. */
export function columnsOf(now: (run: Run) => LiveRow, selection: Selection | undefined): Column<Run>[] {
  const select: Column<Run> = {
    key: "select",
    title: <span className="hidden">Select</span>,
    cell: (run, { index, tabIndex }) => (
      <input
        type="checkbox"
        aria-label={`Select ${run.workspace}`}
        tabIndex={tabIndex}
        checked={(selection?.has(run) ?? false) && !now(run).isDeleted}
        disabled={now(run).isDeleted}
        onChange={({ nativeEvent }) => selection?.toggle(index, (nativeEvent as MouseEvent).shiftKey)}
      />
    ),
  };
  return [
    ...(selection ? [select] : []),
    {
      key: "name",
      title: "Run",
      cell: (run, { tabIndex }) => <RunName run={now(run).run} tabIndex={tabIndex} />,
    },
    {
      key: "state",
      title: "Status",
      cell: (run) => <State row={now(run)} />,
    },
    {
      key: "launched",
      title: "Launched",
      cell: (run) => <Time at={now(run).run.launchedAt} />,
    },
    {
      key: "took",
      title: "Duration",
      cell: (run) => <Took run={now(run).run} />,
    },
    {
      key: "progress",
      title: "Progress",
      cell: (run) => <Progress run={now(run).run} />,
    },
    {
      key: "annotations",
      title: "Annotations",
      cell: (run) => <Annotations all={now(run).run.annotations} />,
    },
  ];
}

function State({ row: { run, isDeleted, matches } }: { row: LiveRow }) {
  if (isDeleted) return <span className="none">deleted</span>;
  return (
    <>
      <Status status={run.status} />
      {matches ? <Marks run={run} /> : <span className="none">no longer matches</span>}
    </>
  );
}

function Marks({ run }: { run: Run }) {
  return (
    <>
      {run.isStuck && <span className="strong tone-failed">stuck</span>}
      {run.hasFailed && run.status !== "FAILED" && <span className="tone-failed">has failed</span>}
    </>
  );
}

function Progress({ run }: { run: Run }) {
  if (!run.progress) return null;
  return <Meter progress={run.progress} label={`Progress of ${run.study?.name ?? run.workspace}`} />;
}

function Took({ run }: { run: Run }) {
  if (run.duration != null) return <>{duration(run.duration)}</>;
  if (run.status === "RUNNING" && run.startedAt) return <Since at={run.startedAt} />;
  return <span className="none">–</span>;
}

function Since({ at }: { at: string }) {
  const now = useNow();
  return <>{duration((now - Date.parse(at)) / 1000)} so far</>;
}

function Annotations({ all }: { all: unknown }) {
  const entries = entriesOf(all);
  return entries.length === 0 ? null : (
    <span title={entries.map((entry) => entry.join(": ")).join("\n")}>
      {entries.map(([key, value]) => (
        <span key={key} className="annotation">
          {value === "true" ? key : `${key}: ${value}`}
        </span>
      ))}
    </span>
  );
}

/** Keys and values as text: JSON where a value is none. */
export function entriesOf(annotations: unknown): [string, string][] {
  if (typeof annotations !== "object" || annotations === null) return [];
  return Object.entries(annotations).map(([key, value]) => [key, shownAs(value)]);
}

export function shownAs(value: unknown): string {
  return typeof value === "string" ? value : JSON.stringify(value);
}
