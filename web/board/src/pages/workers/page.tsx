// Who works: each worker with what is heard of it and what Merlin recorded, by logical worker or by host.
import { useDeferredValue, useMemo } from "react";

import { change, href, useAddress } from "../../browser/address.ts";
import { BoardWorkersDocument } from "../../gql/graphql.ts";
import { useHeld } from "../../lists/held.ts";
import { useLive } from "../../api/live.ts";
import { HeadButton } from "../../parts/head_button.tsx";
import { LongList } from "../../parts/long_list.tsx";
import { SearchField } from "../../parts/search_field.tsx";
import { Empty, Failure, Loading } from "../../parts/states.tsx";
import { Tiles } from "../../parts/tiles.tsx";
import { GroupLine } from "./group_line.tsx";
import { GROUPINGS, type Grouping, type Kind, KINDS, isOf, linesOf } from "./groups.ts";
import { useRecords } from "./records.ts";
import { WorkerLine } from "./worker_line.tsx";
import { type Worker, workersOf } from "./workers.ts";

import "../../styles/lists.css";
import "./page.css";

const KIND_WORDS: Record<Kind, string> = {
  alive: "Alive",
  gone: "Gone",
  unheard: "Not heard",
  unrecorded: "Alive without a record",
};
const GROUPING_WORDS: Record<Grouping, string> = { logical: "Logical worker", host: "Host" };

export function WorkersPage() {
  const { records, error } = useRecords();
  const { data, error: liveError } = useLive(BoardWorkersDocument, {});
  const isHeard = data?.database.sources.includes("CELERY_EVENTS") ?? false;
  const workers = useMemo(
    () => (records && data ? workersOf(records, data.liveWorkers, isHeard) : undefined),
    [records, data, isHeard],
  );
  const failure = error ?? liveError;
  return (
    <>
      <h1 tabIndex={-1}>Workers</h1>
      {failure && <Failure error={failure} />}
      {!workers && !failure && <Loading rows={12} />}
      {records && workers && (
        <>
          {isHeard ? (
            <Kinds workers={workers} />
          ) : (
            <p className="hint">
              <strong>Not known who is alive:</strong> this server does not hear the workers' heartbeats. What stands
              here is what Merlin recorded last.
            </p>
          )}
          <Choices />
          <Lines workers={workers} records={records} />
        </>
      )}
    </>
  );
}

/** How many there are of each kind; one of them can be chosen. */
function Kinds({ workers }: { workers: readonly Worker[] }) {
  const { path, params } = useAddress();
  const chosen = params.get("kind");
  const tiles = KINDS.map((kind) => ({
    key: kind,
    tone: `tone-worker-${kind}`,
    count: workers.filter((worker) => isOf(worker, kind)).length,
    word: KIND_WORDS[kind],
    href: href(path, { ...Object.fromEntries(params), kind: chosen === kind ? null : kind }),
    isChosen: chosen === kind,
  }));
  return <Tiles label="Workers by what is heard of them" tiles={tiles} />;
}

function Choices() {
  const { params } = useAddress();
  const by = groupingOf(params);
  return (
    <form className="choices" role="search" onSubmit={(event) => event.preventDefault()}>
      <SearchField placeholder="Name, host, queue, pid" />
      <label>
        <span>By</span>
        <select value={by} onChange={(event) => change({ by: event.target.value })}>
          {GROUPINGS.map((each) => (
            <option key={each} value={each}>
              {GROUPING_WORDS[each]}
            </option>
          ))}
        </select>
      </label>
    </form>
  );
}

function Lines({ workers, records }: { workers: readonly Worker[]; records: Parameters<typeof linesOf>[1] }) {
  const { params } = useAddress();
  const by = groupingOf(params);
  const kind = KINDS.find((each) => each === params.get("kind"));
  const text = useDeferredValue(params.get("q") ?? "");
  const { lines, all } = useMemo(
    () => linesOf(workers, records, { by, kind, text }),
    [workers, records, by, kind, text],
  );
  const { slots, news, renew } = useHeld(`${by} ${kind} ${text}`, lines, all);
  const isNarrowed = Boolean(kind || text);
  return (
    <section aria-label="Workers" className="workers">
      <div className="section-head">
        <h2 tabIndex={-1}>
          By {GROUPING_WORDS[by].toLowerCase()}{" "}
          <span className="count" role="status">
            {shownOf(slots, workers.length)}
          </span>
        </h2>
        {isNarrowed && <HeadButton onPress={() => change({ q: null, kind: null })}>Show all workers</HeadButton>}
        {news > 0 && <HeadButton onPress={renew}>Show {news.toLocaleString()} more</HeadButton>}
      </div>
      {slots.length === 0 ? (
        <Empty>{isNarrowed ? "No worker is like that." : "No worker was ever registered, and none is heard."}</Empty>
      ) : (
        <LongList label="Workers" rows={slots} idOf={({ id }) => id} heights={{ wide: 36, narrow: 84 }}>
          {({ row, left }) =>
            row.group ? (
              <GroupLine group={row.group} by={by} left={left} />
            ) : (
              <WorkerLine worker={row.worker} by={by} left={left} />
            )
          }
        </LongList>
      )}
    </section>
  );
}

function shownOf(slots: readonly { row: { worker?: Worker | undefined } }[], total: number): string {
  const shown = slots.reduce((count, { row }) => count + Number(row.worker !== undefined), 0);
  return shown === total ? total.toLocaleString() : `${shown.toLocaleString()} of ${total.toLocaleString()}`;
}

function groupingOf(params: URLSearchParams): Grouping {
  return GROUPINGS.find((each) => each === params.get("by")) ?? "logical";
}
