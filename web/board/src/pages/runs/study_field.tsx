// The name of a study, with those that the server knows offered as somebody types.
import { useEffect, useState } from "react";
import { useQuery } from "urql";

import { change } from "../../browser/address.ts";
import { BoardStudyNamesDocument } from "../../gql/graphql.ts";
import { useDraft } from "../../parts/drafts.ts";
import { Field } from "./field.tsx";

const ASKED_AFTER = 200;

export function StudyField({ value }: { value: string }) {
  const draft = useDraft(value, (study) => change({ study }));
  const text = useSettled(draft.text, ASKED_AFTER);
  const [hasFocus, setFocus] = useState(false);
  const [{ data }] = useQuery({ query: BoardStudyNamesDocument, variables: { text }, pause: !hasFocus });
  const names = data?.studies.nodes.map(({ name }) => name) ?? [];
  const type = (wanted: string) => {
    draft.type(wanted);
    if (wanted === "" || names.includes(wanted)) change({ study: wanted }); // cleared, or taken from the list
  };
  return (
    <Field label="Study">
      <input
        name="study"
        list="study-names"
        autoComplete="off"
        value={draft.text}
        onChange={(event) => type(event.target.value)}
        onFocus={() => setFocus(true)}
        onBlur={() => {
          setFocus(false);
          draft.send();
        }}
        onKeyDown={(event) => event.key === "Enter" && draft.send()}
      />
      <datalist id="study-names">
        {names.map((name) => (
          <option key={name} value={name} />
        ))}
      </datalist>
    </Field>
  );
}

/** The value once it has not changed for so many milliseconds. */
function useSettled<T>(value: T, after: number): T {
  const [settled, settle] = useState(value);
  useEffect(() => {
    const timer = setTimeout(() => settle(value), after);
    return () => clearTimeout(timer);
  }, [value, after]);
  return settled;
}
