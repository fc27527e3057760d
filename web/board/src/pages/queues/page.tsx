// What waits where, and which queues nobody consumes.
import { useDeferredValue, useMemo } from "react";

import { change, href, useAddress } from "../../browser/address.ts";
import { BoardQueuesDocument, type Source } from "../../gql/graphql.ts";
import { useHeld } from "../../lists/held.ts";
import { useLive } from "../../api/live.ts";
import { HeadButton } from "../../parts/head_button.tsx";
import { LongList } from "../../parts/long_list.tsx";
import { SearchField } from "../../parts/search_field.tsx";
import { Empty, Failure, Loading } from "../../parts/states.tsx";
import { Tiles } from "../../parts/tiles.tsx";
import { useHistory } from "./history.ts";
import { QueueLine } from "./queue_line.tsx";
import { isOf, type Kind, KINDS, type Queue, queuesOf } from "./queues.ts";

import "../../styles/lists.css";
import "./page.css";

const KIND_WORDS: Record<Kind, string> = {
  unconsumed: "Waiting, and nobody consumes",
  waiting: "With what waits",
  empty: "Empty",
};

export function QueuesPage() {
  const { data, error } = useLive(BoardQueuesDocument, {});
  const queues = useMemo(() => data && queuesOf(data.queues), [data]);
  return (
    <>
      <h1 tabIndex={-1}>Queues</h1>
      {error && <Failure error={error} />}
      {!queues && !error && <Loading rows={8} />}
      {data && queues && (
        <>
          <Unknown sources={data.database.sources} />
          {data.database.sources.includes("BROKER_QUEUES") && <Kinds queues={queues} />}
          <Find />
          <Lines queues={queues} />
        </>
      )}
    </>
  );
}

/** What this server can't tell, so that nobody takes it for nothing. */
function Unknown({ sources }: { sources: readonly Source[] }) {
  const seesQueues = sources.includes("BROKER_QUEUES");
  const seesWorkers = sources.includes("CELERY_EVENTS");
  if (seesQueues && seesWorkers) return null;
  return (
    <p className="hint">
      {!seesQueues && (
        <>
          <strong>Not known what waits:</strong> this server does not see the queues of the broker.{" "}
        </>
      )}
      {!seesWorkers && (
        <>
          <strong>Not known who consumes:</strong> this server does not hear the workers' heartbeats.
        </>
      )}
    </p>
  );
}

function Kinds({ queues }: { queues: readonly Queue[] }) {
  const { path, params } = useAddress();
  const chosen = params.get("kind");
  const tiles = KINDS.map((kind) => ({
    key: kind,
    tone: `tone-queue-${kind}`,
    count: queues.filter((queue) => isOf(queue, kind)).length,
    word: KIND_WORDS[kind],
    href: href(path, { ...Object.fromEntries(params), kind: chosen === kind ? null : kind }),
    isChosen: chosen === kind,
  }));
  return <Tiles label="Queues by what waits in them" tiles={tiles} />;
}

function Find() {
  return (
    <form className="choices" role="search" onSubmit={(event) => event.preventDefault()}>
      <SearchField placeholder="Queue" />
    </form>
  );
}

function Lines({ queues }: { queues: readonly Queue[] }) {
  const { params } = useAddress();
  const kind = KINDS.find((each) => each === params.get("kind"));
  const text = useDeferredValue(params.get("q") ?? "")
    .trim()
    .toLowerCase();
  const all = useMemo(() => new Map(queues.map((queue) => [queue.id, queue])), [queues]);
  const rows = useMemo(
    () => queues.filter((queue) => (!kind || isOf(queue, kind)) && queue.queue.toLowerCase().includes(text)),
    [queues, kind, text],
  );
  const { slots, news, renew, sorted } = useHeld(`${kind} ${text}`, rows, all);
  const { points, now } = useHistory(queues);
  const isNarrowed = Boolean(kind || text);
  const shown = slots.length === queues.length ? "" : `${slots.length.toLocaleString()} of `;
  return (
    <section aria-label="Queues">
      <div className="section-head">
        <h2 tabIndex={-1}>
          Queues{" "}
          <span className="count" role="status">
            {shown}
            {queues.length.toLocaleString()}
          </span>
        </h2>
        {isNarrowed && <HeadButton onPress={() => change({ q: null, kind: null })}>Show all queues</HeadButton>}
        {!sorted && (
          <HeadButton onPress={renew}>Sort anew{news > 0 && `, with ${news.toLocaleString()} more`}</HeadButton>
        )}
      </div>
      {slots.length === 0 ? (
        <Empty>{isNarrowed ? "No queue is like that." : "No run and no worker names a queue."}</Empty>
      ) : (
        <LongList label="Queues" rows={slots} idOf={({ id }) => id} heights={{ wide: 44, narrow: 84 }}>
          {({ row, left }) => <QueueLine queue={row} points={points.get(row.id)} now={now} left={left} />}
        </LongList>
      )}
    </section>
  );
}
