import { href } from "../../browser/address.ts";
import { Name } from "../../parts/name.tsx";
import type { Point } from "./history.ts";
import { isOf, type Queue } from "./queues.ts";
import { SparkLine } from "./spark_line.tsx";

interface Props {
  queue: Queue;
  points: readonly Point[] | undefined;
  now: number;
  left: boolean;
}

/** A queue: what waits, who takes it, and who names it. */
export function QueueLine({ queue, points, now, left }: Props) {
  const { queue: name, waiting, runs, logicalWorkers } = queue;
  return (
    <div className={`queue-line${left ? " left" : ""}`}>
      <span className="strong name">
        <Name>{name}</Name>
      </span>
      {left ? (
        <span className="none">No run and no worker names it any more</span>
      ) : (
        <>
          <span className="waiting">
            {waiting == null ? <span className="none">not known</span> : <strong>{waiting.toLocaleString()}</strong>}{" "}
            waiting
          </span>
          <SparkLine points={points} now={now} />
          <Consumers queue={queue} />
          {logicalWorkers > 0 ? (
            <a href={href(["workers"], { q: name })}>{counted(logicalWorkers, "logical worker")}</a>
          ) : (
            <span className="none">no logical worker</span>
          )}
          {runs > 0 ? (
            <a href={href(["runs"], { queue: name })}>{counted(runs, "run")}</a>
          ) : (
            <span className="none">no run</span>
          )}
        </>
      )}
    </div>
  );
}

function Consumers({ queue }: { queue: Queue }) {
  const { consumers } = queue;
  if (consumers == null) return <span className="none">consumers not known</span>;
  if (consumers > 0) return <span>{counted(consumers, "consumer")}</span>;
  return isOf(queue, "unconsumed") ? (
    <span className="strong tone-failed">
      <span aria-hidden="true">✕</span> nobody consumes
    </span>
  ) : (
    <span className="none">nobody consumes</span>
  );
}

function counted(count: number, noun: string): string {
  return `${count.toLocaleString()} ${noun}${count === 1 ? "" : "s"}`;
}
