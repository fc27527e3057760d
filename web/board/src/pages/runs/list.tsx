// The runs of one filter in one order, without end.
import { type ReactNode, useEffect } from "react";

import { BoardRunsDocument, BoardRunsHeadDocument } from "../../gql/graphql.ts";
import { useLive } from "../../api/live.ts";
import { type Pages, usePages } from "../../lists/pages.ts";
import { Empty, Failure, Loading } from "../../parts/states.tsx";
import { VirtualTable } from "../../parts/virtual_table.tsx";
import { useMay } from "../../api/session.tsx";
import { Actions } from "./actions.tsx";
import { columnsOf } from "./columns.tsx";
import type { Run } from "./data.ts";
import type { View } from "./filter.ts";
import { type LiveRow, useLiveRows } from "./live_rows.ts";
import { newIn } from "./news.ts";
import { useSelection } from "./selection.ts";

const HEIGHTS = { wide: 3, medium: 4.75, narrow: 8.25 };
const HEAD = 100; // runs of BoardRunsHead

/** Give it `memory` as its key, too. */
export function RunList({ view, memory }: { view: View; memory: string }) {
  const variables = { filter: view.filter, orderBy: view.order };
  const pages = usePages(BoardRunsDocument, variables, (data) => data.runs, memory);
  const head = useLive(BoardRunsHeadDocument, variables);
  const live = useLiveRows(view.filter, pages.version);
  const selection = useSelection(pages.rows);
  const mayWrite = useMay("WRITE");
  const first = head.data?.runs;
  const news =
    first && !pages.isLoading
      ? newIn(
          first.nodes.map(({ id }) => id),
          pages.ids,
          !pages.hasMore,
        )
      : 0;
  const total = first?.totalCount ?? pages.totalCount;
  const error = head.error ?? live.error;
  const isEmpty = pages.rows.length === 0;
  useEffect(() => {
    if (isEmpty && news > 0) pages.reload(); // nothing is there that could jump
  }, [isEmpty, news]);
  if (pages.totalCount === undefined) {
    return pages.error ? <Failure error={pages.error} retry={pages.more} /> : <Loading rows={12} />;
  }
  return (
    <>
      <div className="list-head">
        <p className="count" role="status">
          {(total ?? 0).toLocaleString()} {total === 1 ? "run" : "runs"}
        </p>
        {!isEmpty && news > 0 && <button onClick={pages.reload}>{announced(news)}</button>}
        {!isEmpty && news === 0 && total !== pages.totalCount && (
          <button className="quiet" onClick={pages.reload}>
            Load the list again
          </button>
        )}
        {mayWrite && !isEmpty && (
          <Actions selection={selection} pages={pages} now={live.of} filter={view.filter} total={total ?? 0} />
        )}
      </div>
      {error && <Failure error={error} />}
      {isEmpty ? (
        <NoRuns isFiltered={view.filter !== null} />
      ) : (
        <VirtualTable
          name={mayWrite ? "runs selectable" : "runs"}
          label="Runs"
          columns={columnsOf(live.of, mayWrite ? selection : undefined)}
          rows={pages.rows}
          idOf={({ id }) => id}
          total={total}
          heights={HEIGHTS}
          memory={memory}
          restarts={pages.version}
          onEnd={pages.more}
          onRest={live.look}
          classOf={(run) => classOf(live.of(run))}
          {...(mayWrite && {
            isSelected: (run: Run) => selection.has(run) && !live.of(run).isDeleted,
            select: selection.toggle,
          })}
          foot={footOf(pages)}
        />
      )}
    </>
  );
}

function announced(news: number): string {
  const counted = news < HEAD ? news.toLocaleString() : `${HEAD} or more`;
  return news === 1 ? "1 new run: show it" : `${counted} new runs: show them`;
}

function classOf({ isDeleted, matches }: LiveRow): string | undefined {
  if (isDeleted) return "deleted";
  return matches ? undefined : "left";
}

function NoRuns({ isFiltered }: { isFiltered: boolean }) {
  if (isFiltered) return <Empty>No run matches.</Empty>;
  return (
    <Empty>
      There is no run yet: <code>merlin run</code> makes one.
    </Empty>
  );
}

/** What comes after the rows: more, or why not. */
function footOf(pages: Pages<Run>): ReactNode {
  if (pages.error) return <Failure error={pages.error} retry={pages.more} />;
  if (pages.isFull) return <Empty>The list ends here. To see other runs, filter them.</Empty>;
  return pages.hasMore ? <Loading rows={1} /> : null;
}
