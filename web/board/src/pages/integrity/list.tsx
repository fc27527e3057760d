// The problems of one view, the gravest first, without end.
import { type ReactNode, useEffect, useMemo } from "react";

import { BoardProblemsDocument } from "../../gql/graphql.ts";
import { type Pages, usePages } from "../../lists/pages.ts";
import { LongList } from "../../parts/long_list.tsx";
import { Empty, Failure, Loading } from "../../parts/states.tsx";
import { ProblemLine } from "./problem_line.tsx";
import { changesIn, type Count, type Problem, totalOf, type Wanted } from "./problems.ts";
import { useShown } from "./shown.ts";

interface Props {
  wanted: Wanted;
  /** How many there are now. */
  counts: readonly Count[];
  memory: string;
  /** What stands above the list; it is given the button that shows the list as it is now, if that is another one. */
  children: (button: { text: string; onPress: () => void } | undefined) => ReactNode;
}

/** Give it `memory` as its key, too. */
export function ProblemList({ wanted, counts, memory, children }: Props) {
  const pages = usePages(
    BoardProblemsDocument,
    { kinds: wanted.kind && [wanted.kind], severities: wanted.severity && [wanted.severity] },
    ({ integrity }, first) => ({
      totalCount: totalOf(integrity.counts, wanted),
      nodes: integrity.problems,
      pageInfo: {
        hasNextPage: integrity.problems.length === first,
        endCursor: integrity.problems.at(-1)?.id ?? null,
      },
      about: integrity.counts,
    }),
    memory,
  );
  const shown = useShown(pages.version);
  const { rows, hasMore, about } = pages;
  const isEmpty = rows.length === 0;
  const total = totalOf(counts, wanted);
  const changes = useMemo(() => {
    if (!about || !shown.counts) return { come: 0, gone: 0 };
    return changesIn({ rows, counts: about, hasMore }, shown.gone, shown.counts, wanted);
  }, [rows, about, hasMore, shown.gone, shown.counts]);
  useEffect(() => {
    if (isEmpty && total > 0 && pages.totalCount !== undefined) pages.reload(); // nothing is there that could jump
  }, [isEmpty, total, pages.totalCount]);
  const text = changes.come > 0 ? `Show ${changes.come.toLocaleString()} more` : "Leave out what is gone";
  const isOutdated = !isEmpty && !pages.isLoading && changes.come + changes.gone > 0;
  return (
    <>
      {children(isOutdated ? { text, onPress: pages.reload } : undefined)}
      {shown.error && <Failure error={shown.error} />}
      {isEmpty ? (
        <Nothing pages={pages} total={total} isFiltered={totalOf(counts, { severity: null, kind: null }) > 0} />
      ) : (
        <>
          <LongList
            label="Problems"
            rows={rows}
            idOf={({ id }) => id}
            total={Math.max(total, rows.length)}
            heights={{ wide: 90, narrow: 200 }}
            onEnd={pages.more}
            onRest={shown.look}
          >
            {(row) => <ProblemLine problem={shown.of(row)} left={shown.gone.has(row.id)} />}
          </LongList>
          <div className="foot">{footOf(pages)}</div>
        </>
      )}
    </>
  );
}

type Told = Pages<Problem, readonly Count[]>;

function Nothing({ pages, total, isFiltered }: { pages: Told; total: number; isFiltered: boolean }) {
  if (pages.error) return <Failure error={pages.error} retry={pages.more} />;
  if (pages.totalCount === undefined || total > 0) return <Loading rows={8} />;
  return (
    <Empty>
      {isFiltered ? "No problem is like that." : "All agrees: no reference dangles, and every value can be read."}
    </Empty>
  );
}

/** What comes after the rows: more, or why not. */
function footOf(pages: Told): ReactNode {
  if (pages.error) return <Failure error={pages.error} retry={pages.more} />;
  if (pages.isFull) return <Empty>The list ends here. To see other problems, choose a severity or a kind.</Empty>;
  return pages.hasMore ? <Loading rows={1} /> : null;
}
