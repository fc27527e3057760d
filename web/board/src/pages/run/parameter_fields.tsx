// The parameter that tasks are filtered by: its name, then its value, of those that the run has.
import { useEffect, useMemo } from "react";
import { useQuery } from "urql";

import { change } from "../../browser/address.ts";
import { BoardRunParametersDocument } from "../../gql/graphql.ts";
import { useDraft } from "../../parts/drafts.ts";
import { type Parameter, writtenParameter } from "./task_filter.ts";
import { namesOf, valuesOf } from "./task_parameters.ts";

const WAIT = 300;
const AGAIN_AFTER = 5_000;
const MOST = 200; // that are offered at once; whoever types is offered those with this text

interface Props {
  run: string;
  /** Whether the server has read what the run has. */
  isRead: boolean;
  wanted: Parameter | null;
}

/** Nothing for a run without parameters. */
export function ParameterFields({ run, isRead, wanted }: Props) {
  const variables = { id: run };
  const [{ data, error }, ask] = useQuery({ query: BoardRunParametersDocument, variables, pause: !isRead });
  useEffect(() => {
    if (!error) return;
    const timer = setTimeout(ask, AGAIN_AFTER);
    return () => clearTimeout(timer);
  }, [error, ask]);
  const parameters: unknown = data?.run?.parameterValues;
  const name = wanted?.name ?? "";
  const values = useMemo(() => valuesOf(parameters, name), [parameters, name]);
  const names = namesOf(parameters);
  if (name && !names.includes(name)) names.push(name);
  if (names.length === 0) return null;
  return (
    <>
      <label>
        Parameter
        <select value={name} onChange={(event) => change({ parameter: event.target.value })}>
          <option value="">Any</option>
          {names.map((each) => (
            <option key={each} value={each}>
              {each}
            </option>
          ))}
        </select>
      </label>
      {wanted && <ValueField key={name} wanted={wanted} values={values} />}
    </>
  );
}

function ValueField({ wanted: { name, value }, values }: { wanted: Parameter; values: readonly string[] }) {
  const draft = useDraft(value, (typed) => change({ parameter: writtenParameter({ name, value: typed }) }), WAIT);
  const { text } = draft;
  const offered = useMemo(() => values.filter((each) => each.includes(text)).slice(0, MOST), [values, text]);
  return (
    <label>
      Value of {name}
      <input
        type="search"
        list="parameter-values"
        autoComplete="off"
        value={text}
        onChange={(event) => draft.type(event.target.value)}
        onKeyDown={(event) => event.key === "Enter" && draft.send()}
        placeholder="any"
      />
      <datalist id="parameter-values">
        {offered.map((each) => (
          <option key={each} value={each} />
        ))}
      </datalist>
    </label>
  );
}
