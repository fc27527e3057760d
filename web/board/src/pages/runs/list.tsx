// The runs of one filter in one order, without end.
import { useMemo, useState } from "react";

import { BoardRunsDocument, BoardRunsHeadDocument } from "../../gql/graphql.ts";
import { useLive } from "../../live.ts";
import { type Pages, usePages } from "../../pages_of.ts";
import { Empty, Failure, Loading } from "../../parts/states.tsx";
import { VirtualTable } from "../../parts/virtual_table.tsx";
import { columnsOf } from "./columns.tsx";
import type { Run } from "./data.ts";
import type { View } from "./filter.ts";
import { type LiveRow, useLiveRows } from "./live_rows.ts";
import { newIn } from "./news.ts";

const HEIGHTS = { wide: 3, narrow: 5 };

/** Give it `memory` as its key, too. */
export function RunList({ view, memory }: { view: View; memory: string }) {
  const variables = { filter: view.filter, orderBy: view.order };
  const pages = usePages(BoardRunsDocument, variables, (data) => data.runs, memory);
  const head = useLive(BoardRunsHeadDocument, variables);
  const live = useLiveRows(view.filter);
  const [restarts, setRestarts] = useState(0);
  const known = useMemo(() => new Set(pages.rows.map(({ id }) => id)), [pages.rows]);
  const { data } = head;
  const news = data ? newIn(data.runs.nodes.map(({ id }) => id), known, !pages.hasMore) : 0;
  const total = data?.runs.totalCount ?? pages.totalCount;
  const show = () => {
    pages.reload();
    setRestarts(restarts + 1);
  };
  if (pages.totalCount === undefined) {
    return pages.error ? <Failure error={pages.error} retry={pages.more} /> : <Loading rows={12} />;
  }
  return (
    <>
      <div className="list-head">
        <p className="count" role="status">
          {(total ?? 0).toLocaleString()} {total === 1 ? "run" : "runs"}
        </p>
        {news > 0 && pages.rows.length > 0 && (
          <button onClick={show}>
            {news} new {news === 1 ? "run: show it" : "runs: show them"}
          </button>
        )}
      </div>
      {head.error && <Failure error={head.error} />}
      {pages.rows.length === 0 ? (
        <Empty>No run matches.</Empty>
      ) : (
        <VirtualTable
          name="runs"
          label="Runs"
          columns={columnsOf(live.of)}
          rows={pages.rows}
          idOf={({ id }) => id}
          total={total}
          heights={HEIGHTS}
          memory={memory}
          restarts={restarts}
          onEnd={pages.more}
          onRest={live.look}
          classOf={(run) => classOf(live.of(run))}
          foot={<Foot pages={pages} />}
        />
      )}
    </>
  );
}

function classOf({ isDeleted, matches }: LiveRow): string | undefined {
  if (isDeleted) return "deleted";
  return matches ? undefined : "left";
}

/** What comes after the rows: more, or why not. */
function Foot({ pages }: { pages: Pages<Run> }) {
  if (pages.error) return <Failure error={pages.error} retry={pages.more} />;
  if (pages.isFull) return <Empty>The list ends here. To see other runs, filter them.</Empty>;
  return pages.hasMore ? <Loading rows={1} /> : null;
}
