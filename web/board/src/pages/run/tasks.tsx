import { useVirtualizer } from "@tanstack/react-virtual";
import { useEffect, useMemo, useRef } from "react";

import { change, href, useAddress } from "../../address.ts";
import { Section } from "../../parts/section.tsx";
import { Empty, Failure, Loading } from "../../parts/states.tsx";
import { Status } from "../../parts/status.tsx";
import { duration } from "../../times.ts";
import type { Run, Step, Task } from "./data.ts";
import { TaskFilters } from "./task_filters.tsx";
import { type Wanted, wantedOf } from "./task_filter.ts";
import { useTaskPages } from "./task_pages.ts";
import { TaskPanel } from "./task_panel.tsx";
import { Unread } from "./unread.tsx";

interface Props {
  run: Run;
  /** Undefined until the server has said them. */
  steps: readonly Step[] | undefined;
}

/** The tasks of the run; one of them may be open beside the list. */
export function Tasks({ run, steps }: Props) {
  const { params } = useAddress();
  const list = useRef<HTMLDivElement>(null);
  const task = params.get("task");
  // The list stays as it is while a task is opened and closed.
  const asked = JSON.stringify(wantedOf(params));
  const wanted = useMemo(() => JSON.parse(asked) as Wanted, [asked]);
  const close = () => {
    change({ task: null, stream: null });
    requestAnimationFrame(() => (rowOf(task) ?? list.current)?.focus());
  };
  if (steps?.length === 0) {
    return (
      <Section title="Tasks">
        <Unread what="The tasks" />
      </Section>
    );
  }
  return (
    <div className={task ? "tasks with-task" : "tasks"}>
      <div className="task-list" ref={list} tabIndex={-1}>
        <TaskList key={asked} run={run} steps={steps} wanted={wanted} open={task} />
      </div>
      {task && <TaskPanel key={task} run={run} id={task} close={close} />}
    </div>
  );
}

function rowOf(task: string | null): HTMLElement | null {
  return task ? document.querySelector<HTMLElement>(`[data-task="${CSS.escape(task)}"]`) : null;
}

function TaskList({ run, steps, wanted, open }: Props & { wanted: Wanted; open: string | null }) {
  return null;
}
