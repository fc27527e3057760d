// The samples of a run: how many there are, and their values, of which those in sight are asked for.
import type { CombinedError } from "@urql/core";
import { useEffect, useMemo, useState } from "react";
import { useClient } from "urql";

import { BoardRunSamplesDocument } from "../../gql/graphql.ts";
import { Empty, Failure, Loading } from "../../parts/states.tsx";
import { widthsOf, written } from "./grid.ts";
import { type Known, PAGE, type Row, firstMissing, withRows } from "./sample_rows.ts";
import { Unread } from "./unread.tsx";
import { Values } from "./values.tsx";

/** A browser draws no table that is much longer. */
const MOST_ROWS = 200_000;
const MOST_COLUMNS = 50;
/** Rows before and after those in sight that are asked for, too. */
const AROUND = 30;
const AGAIN_AFTER = 5_000; // milliseconds

interface Props {
  run: string;
  columns: readonly string[] | null | undefined;
  count: number | null | undefined;
  /** Whether the server has read the specification. */
  isRead: boolean;
}

export function Samples({ run, columns, count, isRead }: Props) {
  if (!isRead) return <Unread what="The samples" />;
  if (!columns || columns.length === 0) return <Empty>The specification has no samples.</Empty>;
  return (
    <>
      <p>
        {count == null
          ? "Samples, of an unknown number,"
          : `${count.toLocaleString()} ${count === 1 ? "sample" : "samples"}`}{" "}
        of {columns.length} {columns.length === 1 ? "column" : "columns"}:{" "}
        {columns.slice(0, MOST_COLUMNS).map((column, index) => (
          <span key={column}>
            {index > 0 && ", "}
            <code>{column}</code>
          </span>
        ))}
        {columns.length > MOST_COLUMNS ? ", …" : "."}
      </p>
      {count == null ? (
        <Unreadable />
      ) : (
        count > 0 && <SampleValues key={count} run={run} columns={columns} count={count} />
      )}
    </>
  );
}

function SampleValues({ run, columns, count }: { run: string; columns: readonly string[]; count: number }) {
  const { known, end, error, isUnreadable, look, retry } = useSampleRows(run, count);
  const shown = Math.min(end, MOST_ROWS);
  const titles = columns.slice(0, MOST_COLUMNS);
  const isEmpty = known.size === 0;
  const widths = useMemo(() => widthsOf(titles, [...known.values()]), [isEmpty]); // by the first ones: they stay
  if (isEmpty) {
    if (error) return <Failure error={error} retry={retry} />;
    if (isUnreadable) return <Unreadable retry={retry} />;
    return end > 0 ? <Loading rows={4} /> : <Empty>The file of samples has no rows any more.</Empty>;
  }
  return (
    <>
      <Values
        name="Samples"
        run={run}
        titles={titles}
        widths={widths}
        count={shown}
        valueOf={(row, column) => textOf(known.get(row), column)}
        onRest={look}
      />
      {error && <Failure error={error} retry={retry} />}
      {isUnreadable && <Unreadable retry={retry} />}
      <p className="detail">
        {columns.length > MOST_COLUMNS && `These are the first ${MOST_COLUMNS} columns. `}
        {shown < end && `These are the first ${shown.toLocaleString()} samples. `}
        {end < count && `The file has only ${end.toLocaleString()} rows by now. `}A task names its sample by the number
        of its row.
      </p>
    </>
  );
}

function textOf(row: Row | undefined, column: number): string | undefined {
  if (!row) return undefined;
  return column < row.length ? written(row[column]) : "";
}

function Unreadable({ retry }: { retry?: () => void }) {
  return (
    <Empty>
      The server can't read their values now. The file of samples is too large, gone, not below a{" "}
      <code>--workspace-root</code>, of another user, or no table; the server's log has the reason.{" "}
      {retry && <button onClick={retry}>Try again</button>}
    </Empty>
  );
}

/** Asks for the rows in sight that are not known, a page at a time. */
function useSampleRows(run: string, count: number) {
  const client = useClient();
  const [known, setKnown] = useState<Known>(new Map());
  const [end, setEnd] = useState(count); // the file may have become shorter
  const [sight, setSight] = useState({ first: 0, last: 0 });
  const [error, setError] = useState<CombinedError>();
  const [isUnreadable, setUnreadable] = useState(false);
  const [from, to] = [Math.max(sight.first - AROUND, 0), Math.min(sight.last + AROUND, end - 1)];
  const next = error || isUnreadable ? null : firstMissing(known, from, to);

  useEffect(() => {
    if (next === null) return;
    let isLate = false;
    const ask = async () => {
      const variables = { id: run, first: Math.min(PAGE, end - next), offset: next };
      const answer = await client.query(BoardRunSamplesDocument, variables).toPromise();
      if (isLate) return;
      const rows = answer.data?.run?.sampleRows;
      setError(answer.error);
      if (answer.error) return;
      setUnreadable(rows == null);
      if (rows?.length === 0) setEnd(next);
      else if (rows) setKnown((before) => withRows(before, next, rows));
    };
    void ask();
    return () => {
      isLate = true;
    };
  }, [run, next, end]);

  const retry = () => {
    setError(undefined);
    setUnreadable(false);
  };
  useEffect(() => {
    if (!error?.networkError) return;
    const timer = setTimeout(retry, AGAIN_AFTER);
    return () => clearTimeout(timer);
  }, [error]);
  return { known, end, error, isUnreadable, retry, look: (first: number, last: number) => setSight({ first, last }) };
}
