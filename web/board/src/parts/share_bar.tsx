import { scaleLinear } from "@visx/scale";
import { Bar } from "@visx/shape";

import { type AnyStatus, tone, word } from "../values/statuses.ts";

export interface Share {
  status: AnyStatus;
  count: number;
  href?: string;
}

const WIDTH = 1000;
const SMALLEST = 8; // a single failed run among thousands is still seen

/** The shares of statuses, side by side. A reader of screens is told the counts; a mouse can follow each part. */
export function ShareBar({ shares, label }: { shares: readonly Share[]; label: string }) {
  const present = shares.filter(({ count }) => count > 0);
  const total = present.reduce((sum, { count }) => sum + count, 0);
  const counted = present.map(({ status, count }) => `${count} ${word(status).toLowerCase()}`).join(", ") || "none";
  const scale = scaleLinear<number>({ domain: [0, total || 1], range: [0, WIDTH - SMALLEST * present.length] });
  let x = 0;
  return (
    <span className="share-bar">
      <span className="hidden">{`${label}: ${counted}`}</span>
      <svg viewBox={`0 0 ${WIDTH} 16`} preserveAspectRatio="none" aria-hidden="true">
        <rect className="track" width={WIDTH} height={16} />
        {present.map(({ status, count, href }) => {
          const width = scale(count) + SMALLEST;
          const part = (
            <Bar key={status} className={tone(status)} x={x} y={0} width={width} height={16}>
              <title>{`${count} ${word(status).toLowerCase()}`}</title>
            </Bar>
          );
          x += width;
          return href ? (
            <a key={status} href={href} tabIndex={-1}>
              {part}
            </a>
          ) : (
            part
          );
        })}
      </svg>
    </span>
  );
}
