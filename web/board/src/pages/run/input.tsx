import { useMemo } from "react";
import { useQuery } from "urql";

import { BoardRunInputDocument } from "../../gql/graphql.ts";
import { Empty, Failure, Loading } from "../../parts/states.tsx";
import { type Grid, gridOf, parameterGrid, widthsOf } from "./grid.ts";
import { Samples } from "./samples.tsx";
import { Unread } from "./unread.tsx";
import { Values } from "./values.tsx";

/** What the run was given. What Merlin stores of it is shown where something was stored. */
export function Input({ run }: { run: string }) {
  const [{ data, error }, ask] = useQuery({ query: BoardRunInputDocument, variables: { id: run } });
  const found = data?.run;
  if (error) return <Failure error={error} retry={() => ask()} />;
  if (!found) return <Loading rows={4} />;
  const parameters = parameterGrid(found.parameterValues);
  const stored = gridOf(found.samples);
  const storedParameters = parameterGrid(found.parameters);
  return (
    <>
      <h3>Parameters</h3>
      {found.parameterValues == null ? (
        <Unread what="The parameters" retry={ask} />
      ) : parameters ? (
        <Stored name="Parameters" grid={parameters} run={run} />
      ) : (
        <Empty>The specification has no parameters.</Empty>
      )}
      {storedParameters && (
        <>
          <h3>Parameters, as stored</h3>
          <Stored name="Parameters, as stored" grid={storedParameters} run={run} />
        </>
      )}
      <h3>Samples</h3>
      <Samples
        run={run}
        columns={found.sampleColumns}
        count={found.sampleCount}
        isRead={found.parameterValues != null}
      />
      {stored && (
        <>
          <h3>Samples, as stored</h3>
          <Stored name="Samples, as stored" grid={stored} run={run} />
        </>
      )}
    </>
  );
}

/** What somebody stored, or the specification says. */
function Stored({ name, grid, run }: { name: string; grid: Grid; run: string }) {
  const widths = useMemo(() => widthsOf(grid.columns, grid.rows), [grid]);
  return (
    <Values
      name={name}
      run={run}
      titles={grid.columns}
      count={grid.rows.length}
      widths={widths}
      valueOf={(row, column) => grid.rows[row]![column] ?? ""}
    />
  );
}
