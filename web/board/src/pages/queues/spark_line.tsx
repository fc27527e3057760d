import { scaleLinear } from "@visx/scale";
import { LinePath } from "@visx/shape";

import type { Point } from "./history.ts";

const WIDTH = 120;
const HEIGHT = 24;
const EDGE = 2;
const SHORTEST = 60_000; // milliseconds across the whole line

/** What waited since the page was opened, for ten minutes at most; the present is at the right. */
export function SparkLine({ points, now }: { points: readonly Point[] | undefined; now: number }) {
  const most = Math.max(0, ...(points ?? []).map(({ waiting }) => waiting));
  if (!points || points.length < 2 || most === 0) return <span className="spark-line" />;
  const x = scaleLinear<number>({ domain: [Math.min(points[0]!.at, now - SHORTEST), now], range: [0, WIDTH - EDGE] });
  const y = scaleLinear<number>({ domain: [0, most], range: [HEIGHT - EDGE, EDGE] });
  const label = `${points[0]!.waiting} waited when this page was opened, ${most} at most within ten minutes`;
  return (
    <svg className="spark-line" viewBox={`0 0 ${WIDTH} ${HEIGHT}`} role="img" aria-label={label}>
      <title>{label}</title>
      <LinePath data={[...points]} x={({ at }) => x(at)} y={({ waiting }) => y(waiting)} className="stroke" />
    </svg>
  );
}
