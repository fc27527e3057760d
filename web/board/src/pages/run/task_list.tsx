import { useMemo, useState } from "react";

import { BoardTasksDocument } from "../../gql/graphql.ts";
import { type Pages, usePages } from "../../lists/pages.ts";
import { Empty, Failure, Loading } from "../../parts/states.tsx";
import { VirtualTable } from "../../parts/virtual_table.tsx";
import type { Task } from "./data.ts";
import { columnsOf } from "./task_columns.tsx";
import { type Part, type Wanted, filterOf, partsOf } from "./task_filter.ts";
import { useTaskRows } from "./task_rows.ts";

const THROTTLE = 1_000;
const OF_TEXT = 5_000; // the server has to look at each task for a text, and only at some numbers else
const HEIGHTS = { wide: 3, narrow: 4.75 };

interface Props {
  run: string;
  wanted: Wanted;
  /** The task that is open. */
  open: string | null;
}

/** Give it a `key` of what is wanted. */
export function TaskList(props: Props) {
  const parts = useMemo(() => partsOf(props.wanted), [props.wanted]);
  return parts.length === 1 ? <InOrder {...props} part={parts[0]!} /> : <InTwoParts {...props} parts={parts} />;
}

function InOrder({ part, ...props }: Props & { part: Part }) {
  const memory = memoryOf(props);
  const pages = useTaskPages(props.run, part, memory);
  return <Rows {...props} memory={memory} pages={pages} leading={part} leadingThen={pages.totalCount} />;
}

/** The second part stands behind the first one as soon as this is whole. */
function InTwoParts({ parts, ...props }: Props & { parts: readonly Part[] }) {
  const memory = memoryOf(props);
  const first = useTaskPages(props.run, parts[0]!, `${memory} first`);
  const second = useTaskPages(props.run, parts[1]!, memory);
  const rows = useMemo(() => {
    const known = new Set(first.rows.map(({ id }) => id)); // a task may have failed between both answers
    return first.hasMore ? first.rows : [...first.rows, ...second.rows.filter(({ id }) => !known.has(id))];
  }, [first.rows, first.hasMore, second.rows]);
  const isKnown = first.totalCount !== undefined && second.totalCount !== undefined;
  const pages: Pages<Task> = {
    ...(first.hasMore ? first : second),
    rows,
    totalCount: isKnown ? first.totalCount! + second.totalCount! : undefined,
    error: first.error ?? second.error,
    more: () => (first.hasMore ? first.more() : second.more()),
    reload: () => {
      first.reload();
      second.reload();
    },
  };
  return <Rows {...props} memory={memory} pages={pages} leading={parts[0]!} leadingThen={first.totalCount} />;
}

interface RowsProps extends Props {
  memory: string;
  pages: Pages<Task>;
  leading: Part;
  /** How many tasks the first part had when it was asked for. */
  leadingThen: number | undefined;
}

function Rows({ run, wanted, open, memory, pages, leading, leadingThen }: RowsProps) {
  const filter = useMemo(() => filterOf(wanted), [wanted]);
  const live = useTaskRows(run, filter, leading.filter, wanted.text ? OF_TEXT : THROTTLE);
  const [restarts, setRestarts] = useState(0);
  const total = live.matching ?? pages.totalCount;
  const isOutdated =
    !pages.isLoading &&
    live.matching !== undefined &&
    (live.matching !== pages.totalCount || live.leading !== leadingThen);
  const show = () => {
    pages.reload();
    setRestarts(restarts + 1);
  };
  if (pages.totalCount === undefined) {
    return pages.error ? <Failure error={pages.error} retry={pages.more} /> : <Loading rows={8} />;
  }
  return (
    <>
      <div className="list-head">
        <p className="count" role="status">
          {(total ?? 0).toLocaleString()} {total === 1 ? "task" : "tasks"}
        </p>
        {isOutdated && <button onClick={show}>Other tasks match, or come first, by now: show them</button>}
      </div>
      {live.error && <Failure error={live.error} />}
      {pages.rows.length === 0 ? (
        <Empty>No task matches.</Empty>
      ) : (
        <VirtualTable
          name="task-table"
          label="Tasks"
          columns={columnsOf(live.of, open)}
          rows={pages.rows}
          idOf={({ id }) => id}
          total={total}
          heights={HEIGHTS}
          memory={memory}
          restarts={restarts}
          onEnd={pages.more}
          onRest={live.look}
          classOf={(task) => classOf(live.of(task), wanted, open)}
          foot={<Foot pages={pages} />}
        />
      )}
    </>
  );
}

function classOf({ id, status }: Task, { statuses }: Wanted, open: string | null): string {
  const isLeft = statuses.length > 0 && !statuses.includes(status);
  return [isLeft && "left", id === open && "open"].filter(Boolean).join(" ");
}

/** What comes after the rows: more, or why not. */
function Foot({ pages }: { pages: Pages<Task> }) {
  if (pages.error) return <Failure error={pages.error} retry={pages.more} />;
  if (pages.isFull) return <Empty>The list ends here. To see other tasks, filter them.</Empty>;
  return pages.hasMore ? <span className="none">More are on their way.</span> : null;
}

function useTaskPages(run: string, part: Part, memory: string): Pages<Task> {
  return usePages(
    BoardTasksDocument,
    { run, filter: part.filter, orderBy: part.orderBy },
    (data) => data.run?.tasks,
    memory,
  );
}

function memoryOf({ run, wanted }: Props): string {
  return `tasks ${run} ${JSON.stringify(wanted)}`;
}
