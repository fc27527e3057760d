import { useQuery } from "urql";

import { BoardRunInputDocument } from "../../gql/graphql.ts";
import { Empty, Failure, Loading } from "../../parts/states.tsx";
import { VirtualTable } from "../../parts/virtual_table.tsx";
import { type Grid, gridOf, parameterGrid } from "./grid.ts";
import { Unread } from "./unread.tsx";

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
        <Unread what="The parameters" />
      ) : parameters ? (
        <Values name="Parameters" grid={parameters} run={run} />
      ) : (
        <Empty>The specification has no parameters.</Empty>
      )}
      {storedParameters && (
        <>
          <h3>Parameters, as stored</h3>
          <Values name="Parameters, as stored" grid={storedParameters} run={run} />
        </>
      )}
      <h3>Samples</h3>
      <Samples columns={found.sampleColumns} count={found.sampleCount} isRead={found.parameterValues != null} />
      {stored && <Values name="Samples" grid={stored} run={run} />}
    </>
  );
}

function Samples(given: { columns?: readonly string[] | null; count?: number | null; isRead: boolean }) {
  const { columns, count, isRead } = given;
  if (!isRead) return <Unread what="The samples" />;
  if (!columns || columns.length === 0) return <Empty>The specification has no samples.</Empty>;
  return (
    <>
      <p>
        {count == null
          ? "Samples, of an unknown number,"
          : `${count.toLocaleString()} ${count === 1 ? "sample" : "samples"}`}{" "}
        of {columns.length} {columns.length === 1 ? "column" : "columns"}:{" "}
        {columns.map((column, index) => (
          <span key={column}>
            {index > 0 && ", "}
            <code>{column}</code>
          </span>
        ))}
        .
      </p>
      <p className="detail">
        Their values stand in a file that the specification names: the server counts its rows, and does not pass them
        on. A task names its sample by the row, from 0, and its script holds the values.
      </p>
    </>
  );
}

/** A row for each value, however many there are. */
function Values({ name, grid, run }: { name: string; grid: Grid; run: string }) {
  const rows = grid.rows;
  const columns = [
    { key: "number", title: "No.", cell: (_: unknown, { index }: { index: number }) => index },
    ...grid.columns.map((title, at) => ({
      key: `value-${at}`,
      title,
      cell: (row: readonly string[]) => <code>{row[at]}</code>,
    })),
  ];
  const ids = new Map(rows.map((row, index) => [row, String(index)]));
  return (
    <div className="scroll" tabIndex={0} role="region" aria-label={name}>
      <VirtualTable
        name="values"
        label={name}
        columns={columns}
        rows={rows}
        idOf={(row) => ids.get(row)!}
        total={rows.length}
        heights={{ wide: 2, narrow: 2 }}
        memory={`values ${run} ${name}`}
        onEnd={() => undefined}
      />
    </div>
  );
}
