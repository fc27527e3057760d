import { AxisBottom } from "@visx/axis";
import { scaleTime } from "@visx/scale";

import { useNow } from "../../browser/clock.ts";
import { Section } from "../../parts/section.tsx";
import { Empty } from "../../parts/states.tsx";
import { Status } from "../../parts/status.tsx";
import { Time } from "../../parts/time.tsx";
import { tone, word } from "../../values/statuses.ts";
import { duration } from "../../values/times.ts";
import { useWidth } from "../../browser/width.ts";
import type { Run } from "./data.ts";

const BAR = 18;
const HEIGHT = 44;
const SIDE = 42; // room for half of the first and last label

interface Span {
  status: Run["status"];
  from: number;
  to: number;
  isLate: boolean;
  at: string;
}

export function History({ run }: { run: Run }) {
  const now = useNow(1_000);
  const spans = spansOf(run, now);
  return (
    <Section title="History">
      {spans.length === 0 ? (
        <Empty>No server saw its status change yet.</Empty>
      ) : (
        <>
          <TimeLine spans={spans} />
          <ol className="rows history" aria-label="Changes of the status, the latest first">
            {spans.toReversed().map(({ status, from, to, at, isLate }, index) => (
              <li key={`${at} ${status}`} className="line">
                <Status status={status} />
                <span className="detail">
                  {isLate
                    ? "noticed late: no server watched when it changed"
                    : (index > 0 || !run.isFinished) &&
                      `${index > 0 ? "for" : "since"} ${duration((to - from) / 1000)}`}
                </span>
                <Time at={at} />
              </li>
            ))}
          </ol>
        </>
      )}
    </Section>
  );
}

function TimeLine({ spans }: { spans: readonly Span[] }) {
  const [frame, width] = useWidth<HTMLDivElement>();
  const first = spans[0]!.from;
  const last = Math.max(spans.at(-1)!.to, first + 1_000);
  const scale = scaleTime<number>({ domain: [first, last], range: [SIDE, Math.max(width - SIDE, SIDE + 1)] });
  return (
    <div ref={frame} className="time-line" aria-hidden="true">
      <svg width={width} height={HEIGHT}>
        {spans.map(({ status, from, to, at, isLate }) => (
          <rect
            key={`${at} ${status}`}
            className={`${tone(status)}${isLate ? " late" : ""}`}
            x={scale(from)}
            y={0}
            width={Math.max(scale(to) - scale(from), 3)}
            height={BAR}
          >
            <title>{`${word(status)}${isLate ? ", noticed late" : ""}`}</title>
          </rect>
        ))}
        <AxisBottom
          top={BAR + 2}
          scale={scale}
          numTicks={Math.max(2, Math.floor(width / 130))}
          tickFormat={(at) => label(at as Date, last - first)}
          hideZero={false}
          tickLength={4}
          tickLabelProps={{
            className: "tick",
            fontSize: 12,
            textAnchor: "middle",
            fill: "currentColor",
            fontFamily: "inherit",
          }}
          tickClassName="tick-line"
          axisLineClassName="axis-line"
        />
      </svg>
    </div>
  );
}

/** What each status lasted: until the next one, or until now if the run is active. */
function spansOf(run: Run, now: number): Span[] {
  const changes = run.statusHistory;
  return changes.map(({ status, at, isLate }, index) => {
    const from = Date.parse(at);
    const next = changes[index + 1];
    const to = next ? Date.parse(next.at) : run.isFinished ? from : Math.max(now, from);
    return { status, from, to, isLate, at };
  });
}

function label(at: Date, span: number): string {
  if (span > 2 * 86_400_000) return at.toLocaleDateString(undefined, { month: "short", day: "numeric" });
  const seconds = span < 10 * 60_000 ? { second: "2-digit" as const } : {};
  return at.toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit", ...seconds });
}
