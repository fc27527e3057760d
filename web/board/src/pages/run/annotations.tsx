import { type FormEvent, type KeyboardEvent, useEffect, useId, useRef, useState } from "react";
import { useMutation } from "urql";

import { useFocusNext } from "../../browser/focus.ts";
import { BoardAnnotateDocument } from "../../gql/graphql.ts";
import { Section } from "../../parts/section.tsx";
import { Empty, Failure } from "../../parts/states.tsx";
import { useMay } from "../../api/session.tsx";
import { kindOf, readValue, writtenValue } from "./annotation_value.ts";
import type { Run } from "./data.ts";

/** What people noted about the run. Who may write changes one at a time. */
export function Annotations({ run }: { run: Run }) {
  const mayWrite = useMay("WRITE");
  const entries = Object.entries(run.annotations as Record<string, unknown>);
  const [edited, edit] = useState<string | null>(null);
  const [{ error, data, fetching }, annotate] = useMutation(BoardAnnotateDocument);
  const problems = data?.annotate.userErrors ?? [];
  const add = useRef<HTMLButtonElement>(null);

  const set = async (key: string, value: unknown): Promise<boolean> => {
    const answer = await annotate({ id: run.id, annotations: { [key]: value } });
    return !answer.error && answer.data?.annotate.userErrors.length === 0;
  };
  const focusNext = useFocusNext();
  const focusAdd = () => focusNext(() => add.current);
  /** The focus goes to the button that opened the editor. */
  const close = () => {
    edit(null);
    if (edited) focusNext(() => document.querySelector<HTMLElement>(`[data-edits="${CSS.escape(edited)}"]`));
    else focusAdd();
  };
  const save = async (key: string, value: unknown) => {
    if (await set(key, value)) close();
  };
  const remove = async (key: string) => {
    if (await set(key, null)) focusAdd(); // the button that had the focus goes
  };

  return (
    <Section title="Annotations" total={entries.length}>
      {entries.length === 0 && <Empty>Nobody has noted anything.</Empty>}
      <dl className="notes">
        {entries.map(([key, value]) => (
          <div key={key}>
            <dt>{key}</dt>
            <dd>
              {edited === key ? (
                <Editor name={key} stored={value} busy={fetching} save={save} close={close} />
              ) : (
                <>
                  <span className="mono value">{writtenValue(value)}</span>
                  {mayWrite && (
                    <span className="buttons">
                      <EditButton name={key} edit={() => edit(key)} />
                      <button
                        className="quiet"
                        disabled={fetching}
                        aria-label={`Remove ${key}`}
                        onClick={() => void remove(key)}
                      >
                        Remove
                      </button>
                    </span>
                  )}
                </>
              )}
            </dd>
          </div>
        ))}
      </dl>
      {error && <Failure error={error} isChange />}
      {problems.length > 0 && (
        <ul className="failure" role="alert">
          {problems.map(({ message }) => (
            <li key={message}>{message}</li>
          ))}
        </ul>
      )}
      {mayWrite && edited !== "" && (
        <button ref={add} onClick={() => edit("")}>
          Add an annotation
        </button>
      )}
      {mayWrite && edited === "" && (
        <Editor taken={entries.map(([key]) => key)} busy={fetching} save={save} close={close} />
      )}
    </Section>
  );
}

function EditButton({ name, edit }: { name: string; edit: () => void }) {
  return (
    <button className="quiet" aria-label={`Edit ${name}`} data-edits={name} onClick={edit}>
      Edit
    </button>
  );
}

interface EditorProps {
  /** None for a new annotation. */
  name?: string;
  stored?: unknown;
  taken?: readonly string[];
  busy: boolean;
  save: (key: string, value: unknown) => Promise<void>;
  close: () => void;
}

function Editor({ name, stored, taken = [], busy, save, close }: EditorProps) {
  const id = useId();
  const first = useRef<HTMLInputElement>(null);
  const [key, setKey] = useState(name ?? "");
  const [text, setText] = useState(name === undefined ? "" : writtenValue(stored));
  const [began] = useState(() => JSON.stringify(stored));
  const [isTold, tell] = useState(false);
  const read = readValue(text);
  const wrong =
    key.trim() === ""
      ? "A name is missing."
      : taken.includes(key.trim())
        ? "There is such an annotation: edit it."
        : null;
  const problem = wrong ?? ("problem" in read ? read.problem : null);

  useEffect(() => {
    first.current?.focus();
    first.current?.select();
  }, []);

  const submit = (event: FormEvent) => {
    event.preventDefault();
    if ("value" in read && !wrong) void save(key.trim(), read.value);
    else tell(true);
  };
  const escape = (event: KeyboardEvent) => event.key === "Escape" && close();

  return (
    <form className="editor" onSubmit={submit} onKeyDown={escape} aria-label={name ? `Edit ${name}` : "New annotation"}>
      {name === undefined && (
        <label>
          Name
          <input ref={first} value={key} onChange={(event) => setKey(event.target.value)} autoComplete="off" />
        </label>
      )}
      <label>
        Value
        <input
          ref={name === undefined ? undefined : first}
          value={text}
          onChange={(event) => setText(event.target.value)}
          aria-describedby={id}
          autoComplete="off"
        />
      </label>
      <p id={id} className="detail" role={isTold && problem ? "alert" : undefined}>
        {problem && (isTold || text !== "")
          ? problem
          : "value" in read
            ? `Stored as a ${kindOf(read.value)}.`
            : "JSON, or a text."}
        {name !== undefined &&
          JSON.stringify(stored) !== began &&
          ` Meanwhile it was changed to ${writtenValue(stored)}.`}
      </p>
      <span className="buttons">
        <button className="primary" disabled={busy}>
          Save
        </button>
        <button type="button" onClick={close}>
          Cancel
        </button>
      </span>
    </form>
  );
}
