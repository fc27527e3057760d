import { useMemo, useState } from "react";

import { BoardTasksDocument } from "../../gql/graphql.ts";
import { type Pages, usePages } from "../../lists/pages.ts";
import { Empty, Failure, Loading } from "../../parts/states.tsx";
import { VirtualTable } from "../../parts/virtual_table.tsx";
import type { Task } from "./data.ts";
import { columnsOf } from "./task_columns.tsx";
import { ORDERED, type Wanted, filterOf } from "./task_filter.ts";
import { useTaskNews } from "./task_news.ts";
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
export function TaskList({ run, wanted, open }: Props) {
  const filter = useMemo(() => filterOf(wanted), [wanted]);
  const memory = `tasks ${run} ${JSON.stringify(wanted)}`;
  const variables = { run, filter, orderBy: ORDERED[wanted.order] };
  const pages = usePages(BoardTasksDocument, variables, (data) => data.run?.tasks, memory);
  const hasFailedFirst = wanted.order === "failed";
  const live = useTaskRows(run, filter, { hasFailedFirst, throttle: wanted.text ? OF_TEXT : THROTTLE });
  const news = useTaskNews(pages, live, memory);
  const [restarts, setRestarts] = useState(0);
  const total = live.matching ?? pages.totalCount;
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
        {news && <button onClick={show}>{news}</button>}
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
