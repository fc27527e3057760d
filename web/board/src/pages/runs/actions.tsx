// What can be done with the runs that are selected.
import { useState } from "react";

import type { RunFilter } from "../../gql/graphql.ts";
import type { Pages } from "../../lists/pages.ts";
import { AnnotateDialog } from "./annotate.tsx";
import type { Run } from "./data.ts";
import type { LiveRow } from "./live_rows.ts";
import { DeleteDialog, type Doomed, MOST_DELETED } from "./remove.tsx";
import type { Selection } from "./selection.ts";

interface Props {
  selection: Selection;
  pages: Pages<Run>;
  /** What is known of a run by now. */
  now: (run: Run) => LiveRow;
  filter: RunFilter | null;
  total: number;
}

type Open = { kind: "annotate"; runs: Run[] } | { kind: "delete"; doomed: Doomed } | undefined;

export function Actions({ selection, pages, now, filter, total }: Props) {
  const [open, setOpen] = useState<Open>();
  const present = (runs: Iterable<Run>) => [...runs].map(now).filter(({ isDeleted }) => !isDeleted);
  const selected = present(selection.runs.values()).map(({ run }) => run); // what was deleted meanwhile is no more
  const count = selected.length;
  const matching = () =>
    present(pages.rows)
      .filter(({ matches }) => matches)
      .map(({ run }) => run);
  const byId = (runs: readonly Run[]) => new Map(runs.map((run) => [run.id, run]));
  const close = () => {
    setOpen(undefined);
    if (document.activeElement === document.body) {
      document.querySelector<HTMLElement>('.virtual-table.runs .row[tabindex="0"]')?.focus();
    }
  };
  return (
    <div className="selected">
      {count > 0 && (
        <>
          <span role="status">{count.toLocaleString()} selected</span>
          <button className="quiet" onClick={selection.clear}>
            Clear
          </button>
          <button onClick={() => setOpen({ kind: "annotate", runs: selected })}>Annotate…</button>
          <button
            className="danger"
            disabled={count > MOST_DELETED}
            title={count > MOST_DELETED ? `At most ${MOST_DELETED.toLocaleString()} at once` : undefined}
            onClick={() => {
              const runs = byId(selected);
              setOpen({ kind: "delete", doomed: { filter: { id: { in: [...runs.keys()] } }, count: runs.size, runs } });
            }}
          >
            Delete…
          </button>
        </>
      )}
      {count < pages.rows.length && total > 0 && (
        <button className="quiet" onClick={selection.all}>
          Select all {pages.rows.length.toLocaleString()} loaded
        </button>
      )}
      {filter && count === 0 && total > 0 && total <= MOST_DELETED && (
        <button
          className="quiet"
          onClick={() => setOpen({ kind: "delete", doomed: { filter, count: total, runs: byId(matching()) } })}
        >
          Delete all that match…
        </button>
      )}
      {open?.kind === "annotate" && <AnnotateDialog runs={open.runs} onClose={close} />}
      {open?.kind === "delete" && <DeleteDialog doomed={open.doomed} onDeleted={selection.drop} onClose={close} />}
    </div>
  );
}
