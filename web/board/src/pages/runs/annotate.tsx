// Annotates the runs that are selected, one after the other, and keeps in view what was refused.
import { type FormEvent, useId, useRef, useState } from "react";
import { useClient } from "urql";

import { BoardAnnotateDocument } from "../../gql/graphql.ts";
import { RunName } from "../../parts/run_name.tsx";
import { isUnsure, told } from "../../parts/states.tsx";
import { entriesOf } from "./columns.tsx";
import type { Run } from "./data.ts";
import { Dialog } from "../../parts/dialog.tsx";
import { parsed } from "./filter.ts";

interface Refusal {
  run: Run;
  message: string;
  isUnsure: boolean;
}

type State = { kind: "form" } | { kind: "busy" | "done"; tried: number };

const NAMED = 100;

export function AnnotateDialog({ runs, onClose }: { runs: readonly Run[]; onClose: () => void }) {
  const client = useClient();
  const keys = useId();
  const [count, setCount] = useState(1);
  const [state, setState] = useState<State>({ kind: "form" });
  const [refusals, setRefusals] = useState<Refusal[]>([]);
  const isClosed = useRef(false);

  const submit = async (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault();
    const annotations = annotationsOf(new FormData(event.currentTarget));
    let tried = 0;
    setRefusals([]);
    for (const run of runs) {
      if (isClosed.current) return;
      setState({ kind: "busy", tried: tried++ });
      const { data, error } = await client.mutation(BoardAnnotateDocument, { id: run.id, annotations }).toPromise();
      const refused = error ? told(error) : (data?.annotate.userErrors ?? []);
      if (refused.length === 0) continue;
      const message = refused.map((each) => (each.code ? `${each.message} (${each.code})` : each.message)).join(" ");
      setRefusals((before) => [...before, { run, message, isUnsure: error !== undefined && isUnsure(error) }]);
      if (error?.networkError) break; // the others would fare no better
    }
    setState({ kind: "done", tried });
  };

  return (
    <Dialog
      title={`Annotate ${counted(runs.length)}`}
      onClose={() => {
        isClosed.current = true;
        onClose();
      }}
    >
      {(close) => (
        <form onSubmit={(event) => void submit(event)}>
          <Present runs={runs} />
          <p className="muted">
            A value is JSON, or else a text: 12 is a number, “12” in quotes a text. A key without a value is removed.
          </p>
          <datalist id={keys}>
            {[...presentIn(runs).keys()].map((key) => (
              <option key={key} value={key} />
            ))}
          </datalist>
          {Array.from({ length: count }, (_, index) => (
            <div key={index} className="pair">
              <label>
                <span>Key</span>
                <input name="key" list={keys} required={index === 0} autoComplete="off" autoFocus={index === 0} />
              </label>
              <label>
                <span>Value</span>
                <input name="value" autoComplete="off" />
              </label>
            </div>
          ))}
          <button type="button" className="quiet" onClick={() => setCount(count + 1)}>
            Another key
          </button>
          <p role="status">
            {state.kind === "busy" && `Annotated: ${state.tried} of ${runs.length}.`}
            {state.kind === "done" && `${counted(state.tried - refusals.length)} annotated.`}
            {state.kind === "done" && state.tried < runs.length && ` Not tried: ${counted(runs.length - state.tried)}.`}
          </p>
          {refusals.length > 0 && <Refusals all={refusals} />}
          <div className="actions">
            <button className="primary" disabled={state.kind === "busy"}>
              Annotate
            </button>
            <button type="button" onClick={close}>
              {state.kind === "busy" ? "Stop" : "Close"}
            </button>
          </div>
        </form>
      )}
    </Dialog>
  );
}

function Refusals({ all }: { all: readonly Refusal[] }) {
  return (
    <div className="failure" role="alert">
      <p>
        {counted(all.length)} not annotated{all.some((each) => each.isUnsure) && ", as far as is known"}:
      </p>
      <ul>
        {all.slice(0, NAMED).map(({ run, message, isUnsure }) => (
          <li key={run.id}>
            <RunName run={run} />: {message} {isUnsure && "It may have been annotated."}
          </li>
        ))}
        {all.length > NAMED && <li>and {(all.length - NAMED).toLocaleString()} more</li>}
      </ul>
    </div>
  );
}

/** What the runs are annotated with now, and how many of them. */
function Present({ runs }: { runs: readonly Run[] }) {
  const present = presentIn(runs);
  if (present.size === 0) return <p>{runs.length === 1 ? "It has" : "They have"} no annotations yet.</p>;
  return (
    <table>
      <thead>
        <tr>
          <th scope="col">Now</th>
          <th scope="col">Value</th>
          <th scope="col">Runs</th>
        </tr>
      </thead>
      <tbody>
        {[...present].map(([key, values]) => (
          <tr key={key}>
            <th scope="row">{key}</th>
            <td>{values.size === 1 ? [...values.keys()][0] : `${values.size} different values`}</td>
            <td>{[...values.values()].reduce((sum, each) => sum + each, 0)}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

/** How many runs have each value of each key. */
function presentIn(runs: readonly Run[]): Map<string, Map<string, number>> {
  const present = new Map<string, Map<string, number>>();
  for (const { annotations } of runs) {
    for (const [key, value] of entriesOf(annotations)) {
      const values = present.get(key) ?? new Map<string, number>();
      present.set(key, values.set(value, (values.get(value) ?? 0) + 1));
    }
  }
  return present;
}

function annotationsOf(form: FormData): Record<string, unknown> {
  const values = form.getAll("value").map(String);
  const pairs = form.getAll("key").map((key, index) => [String(key).trim(), values[index]!] as const);
  return Object.fromEntries(pairs.filter(([key]) => key).map(([key, value]) => [key, valueOf(value.trim())]));
}

function valueOf(text: string): unknown {
  if (text === "") return null;
  const value = parsed(text);
  return value === undefined ? text : value;
}

export function counted(runs: number): string {
  return `${runs.toLocaleString()} ${runs === 1 ? "run" : "runs"}`;
}
