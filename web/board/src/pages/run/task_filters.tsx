import { useEffect, useState } from "react";

import { change } from "../../browser/address.ts";
import type { TaskStatus } from "../../gql/graphql.ts";
import { MARKS, TASK_STATUSES, tone, word } from "../../values/statuses.ts";
import type { Run, Step } from "./data.ts";
import { ParameterFields } from "./parameter_fields.tsx";
import { ORDERS, type Wanted } from "./task_filter.ts";

const WAIT = 300;

/** What the list looks for stands in the address; so do the list's other parts. */
export function TaskFilters({
  run,
  steps = [],
  wanted,
}: {
  run: Run;
  steps?: readonly Step[] | undefined;
  wanted: Wanted;
}) {
  const counted = (steps.find(({ name }) => name === wanted.step) ?? run).progress?.counts ?? [];
  const counts = new Map(counted.map(({ status, count }) => [status, count]));
  const offered = TASK_STATUSES.filter((status) => (counts.get(status) ?? 0) > 0 || wanted.statuses.includes(status));
  const toggle = (status: TaskStatus) => {
    const has = wanted.statuses.includes(status);
    const statuses = TASK_STATUSES.filter((each) => (each === status ? !has : wanted.statuses.includes(each)));
    change({ status: statuses.join(",") });
  };
  return (
    <form className="task-filters" role="search" aria-label="Tasks" onSubmit={(event) => event.preventDefault()}>
      <label>
        Step
        <select value={wanted.step ?? ""} onChange={(event) => change({ step: event.target.value })}>
          <option value="">All steps</option>
          {wanted.step && !steps.some(({ name }) => name === wanted.step) && <option>{wanted.step}</option>}
          {steps.map(({ name }) => (
            <option key={name} value={name}>
              {name}
            </option>
          ))}
        </select>
      </label>
      <ParameterFields run={run.id} isRead={steps.length > 0} wanted={wanted.parameter} />
      <TextFilter text={wanted.text} />
      <label>
        Order
        <select value={wanted.order} onChange={(event) => change({ order: event.target.value })}>
          {Object.entries(ORDERS).map(([order, title]) => (
            <option key={order} value={order}>
              {title}
            </option>
          ))}
        </select>
      </label>
      <fieldset className="toggles">
        <legend>Status</legend>
        {offered.map((status) => (
          <label key={status} className={`toggle ${tone(status)}`}>
            <input type="checkbox" checked={wanted.statuses.includes(status)} onChange={() => toggle(status)} />
            <span>
              <span aria-hidden="true">{MARKS[status]}</span> {word(status)}{" "}
              <span className="muted">{(counts.get(status) ?? 0).toLocaleString()}</span>
            </span>
          </label>
        ))}
      </fieldset>
    </form>
  );
}

/** Heeded when the typing rests. */
function TextFilter({ text }: { text: string }) {
  const [typed, type] = useState(text);
  const [known, setKnown] = useState(text);
  const [sent, send] = useState(text);
  if (text !== known) {
    setKnown(text);
    if (text !== sent) type(text); // the address was changed by other means, such as the button back
  }
  useEffect(() => {
    const wanted = typed.trim();
    if (wanted === text) return;
    const timer = setTimeout(() => {
      send(wanted);
      change({ text: wanted });
    }, WAIT);
    return () => clearTimeout(timer);
  }, [typed, text]);
  return (
    <label>
      Path, return code or worker
      <input
        type="search"
        value={typed}
        onChange={(event) => type(event.target.value)}
        placeholder="such as sim/X.0.5"
      />
    </label>
  );
}
