import { useMemo, useRef } from "react";

import { change, useAddress } from "../../browser/address.ts";
import { useFocusNext } from "../../browser/focus.ts";
import { Section } from "../../parts/section.tsx";
import type { Run, Step } from "./data.ts";
import { TaskFilters } from "./task_filters.tsx";
import { type Wanted, wantedOf } from "./task_filter.ts";
import { TaskList } from "./task_list.tsx";
import { TaskPanel } from "./task_panel.tsx";

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
  const asked = JSON.stringify(wantedOf(params)); // the list stays as it is while a task is opened and closed
  const wanted = useMemo(() => JSON.parse(asked) as Wanted, [asked]);
  const focusNext = useFocusNext();
  const close = () => {
    change({ task: null, stream: null });
    focusNext(() => linkOf(task) ?? list.current);
  };
  return (
    <div className={task ? "tasks with-task" : "tasks"}>
      <Section title="Tasks">
        <div ref={list} tabIndex={-1}>
          <TaskFilters run={run} steps={steps} wanted={wanted} />
          <TaskList key={asked} run={run.id} wanted={wanted} open={task} />
        </div>
      </Section>
      {task && <TaskPanel key={task} run={run} id={task} close={close} />}
    </div>
  );
}

/** Of the row of a task, if it is in the page. */
function linkOf(task: string | null): HTMLElement | null {
  return task ? document.querySelector<HTMLElement>(`[data-task="${CSS.escape(task)}"]`) : null;
}
