// The filters and the order, each of which is in the address as soon as it is chosen.
import { useEffect, useRef } from "react";
import { useQuery } from "urql";

import { useIsOpen } from "../../api/connection.ts";
import { change, go, href } from "../../browser/address.ts";
import { BoardFilterChoicesDocument, type RunOrderField } from "../../gql/graphql.ts";
import { MARKS, RUN_STATUSES, tone, word } from "../../values/statuses.ts";
import { useDraft } from "../../parts/drafts.ts";
import { Field } from "./field.tsx";
import { FILTERS, type FilterName, type View, orderShown, statusesOf } from "./filter.ts";
import { StudyField } from "./study_field.tsx";
import { TimeField } from "./time_field.tsx";

const TYPED_AFTER = 250;
const AGAIN_AFTER = 5_000;

const ORDERS: [RunOrderField, "ASC" | "DESC", string][] = [
  ["LAUNCHED_AT", "DESC", "Launched last"],
  ["LAUNCHED_AT", "ASC", "Launched first"],
  ["STARTED_AT", "DESC", "Started last"],
  ["STARTED_AT", "ASC", "Started first"],
  ["FINISHED_AT", "DESC", "Finished last"],
  ["FINISHED_AT", "ASC", "Finished first"],
  ["DURATION", "DESC", "Longest"],
  ["DURATION", "ASC", "Shortest"],
  ["STATUS", "ASC", "Status"],
  ["STATUS", "DESC", "Status, backwards"],
  ["WORKSPACE", "ASC", "Workspace, A to Z"],
  ["WORKSPACE", "DESC", "Workspace, Z to A"],
  ["ID", "ASC", "Id"],
  ["ID", "DESC", "Id, backwards"],
];

const MORE: readonly FilterName[] = [
  "launchedAfter",
  "launchedBefore",
  "finishedAfter",
  "annotation",
  "worker",
  "finished",
  "failed",
  "stuck",
];

export function FilterForm({ params, view }: { params: URLSearchParams; view: View }) {
  const [{ data, error }, ask] = useQuery({ query: BoardFilterChoicesDocument });
  useAgain(error, ask);
  const of = (name: FilterName) => params.get(name) ?? "";
  const more = MORE.filter(of).length;
  const isChanged = [...FILTERS, "order", "direction"].some((name) => params.get(name)) || view.problems.length > 0;
  const { field, direction } = orderShown(view);
  return (
    <form className="filters" role="search" aria-label="Filters of runs" onSubmit={(event) => event.preventDefault()}>
      <div className="fields">
        <TextField label="Text in the workspace" name="text" value={of("text")} type="search" after={TYPED_AFTER} />
        <StudyField value={of("study")} />
        <Choice
          label="Queue"
          name="queue"
          value={of("queue")}
          any="All"
          choices={data?.queues.map(({ queue }) => queue)}
        />
        <Field label="Order">
          <select
            name="order"
            value={`${field} ${direction}`}
            onChange={(event) => {
              const [order, wanted] = event.target.value.split(" ");
              change({ order, direction: wanted });
            }}
          >
            {ORDERS.map(([each, way, name]) => (
              <option key={name} value={`${each} ${way}`}>
                {name}
              </option>
            ))}
          </select>
        </Field>
      </div>
      <Statuses chosen={statusesOf(params)} />
      <div className="last">
        <details className="more" open={more > 0 || undefined}>
          <summary>More filters{more > 0 && ` (${more})`}</summary>
          <div className="fields">
            <TimeField label="Launched after" name="launchedAfter" value={of("launchedAfter")} />
            <TimeField label="Launched before" name="launchedBefore" value={of("launchedBefore")} />
            <TimeField label="Finished after" name="finishedAfter" value={of("finishedAfter")} />
            <TextField label="Annotation: key or key=value" name="annotation" value={of("annotation")} />
            <Choice
              label="Worker"
              name="worker"
              value={of("worker")}
              any="All"
              choices={data && [...new Set(data.logicalWorkers.nodes.map(({ name }) => name))]}
            />
            <YesNo label="Finished" name="finished" value={of("finished")} />
            <YesNo label="Failed at any time" name="failed" value={of("failed")} />
            <YesNo label="Stuck" name="stuck" value={of("stuck")} />
          </div>
        </details>
        {isChanged && (
          <button type="button" className="reset" onClick={() => go(href(["runs"]), { replace: true })}>
            Reset
          </button>
        )}
      </div>
    </form>
  );
}

/** Asks again after an error, and after a loss of the connection: there may be others by then. */
function useAgain(error: unknown, ask: () => void): void {
  const isOpen = useIsOpen();
  const wasOpen = useRef(false);
  useEffect(() => {
    if (isOpen && wasOpen.current) ask();
    wasOpen.current ||= isOpen;
  }, [isOpen]);
  useEffect(() => {
    if (!error) return;
    const timer = setTimeout(ask, AGAIN_AFTER);
    return () => clearTimeout(timer);
  }, [error]);
}

interface Named {
  label: string;
  name: FilterName;
  value: string;
}

function TextField({ label, name, value, type = "text", after }: Named & { type?: string; after?: number }) {
  const draft = useDraft(value, (text) => change({ [name]: text }), after);
  return (
    <Field label={label}>
      <input
        name={name}
        type={type}
        autoComplete="off"
        value={draft.text}
        onChange={(event) => draft.type(event.target.value)}
        onBlur={draft.send}
        onKeyDown={(event) => event.key === "Enter" && draft.send()}
      />
    </Field>
  );
}

/** One of a list; what the address asks for is always one of them. */
function Choice({ label, name, value, any, choices = [] }: Named & { any: string; choices?: string[] | undefined }) {
  const all = value && !choices.includes(value) ? [value, ...choices] : choices;
  return (
    <Field label={label}>
      <select name={name} value={value} onChange={(event) => change({ [name]: event.target.value })}>
        <option value="">{any}</option>
        {all.map((each) => (
          <option key={each}>{each}</option>
        ))}
      </select>
    </Field>
  );
}

function YesNo({ label, name, value }: Named) {
  return (
    <Field label={label}>
      <select
        name={name}
        value={value === "yes" || value === "no" ? value : ""}
        onChange={(event) => change({ [name]: event.target.value })}
      >
        <option value="">All</option>
        <option value="yes">Yes</option>
        <option value="no">No</option>
      </select>
    </Field>
  );
}

function Statuses({ chosen }: { chosen: string[] }) {
  return (
    <fieldset className="statuses">
      <legend>Status</legend>
      {RUN_STATUSES.map((status) => {
        const isChosen = chosen.includes(status);
        const next = RUN_STATUSES.filter((each) => (each === status ? !isChosen : chosen.includes(each)));
        return (
          <button
            key={status}
            type="button"
            className={`toggle ${tone(status)}`}
            aria-pressed={isChosen}
            onClick={() => change({ status: next.join(",") })}
          >
            <span aria-hidden="true">{MARKS[status]}</span> {word(status)}
          </button>
        );
      })}
    </fieldset>
  );
}
