import { scaleLinear } from "@visx/scale";
import { LinePath } from "@visx/shape";

import { type Point, WINDOW } from "./history.ts";

const WIDTH = 120;
const HEIGHT = 24;
const EDGE = 2;

/** What waited over the last ten minutes, the present at the right; the line begins when the page was opened. */
export function SparkLine({ points, now }: { points: readonly Point[] | undefined; now: number }) {
  const most = Math.max(0, ...(points ?? []).map(({ waiting }) => waiting));
  if (!points || points.length < 2 || most === 0) return <span className="spark-line" />;
  const x = scaleLinear<number>({ domain: [now - WINDOW, now], range: [0, WIDTH - EDGE] });
  const y = scaleLinear<number>({ domain: [0, most], range: [HEIGHT - EDGE, EDGE] });
  const label = `${points[0]!.waiting} waited when this page was opened, ${most} at most within ten minutes`;
  return (
    <svg className="spark-line" viewBox={`0 0 ${WIDTH} ${HEIGHT}`} role="img" aria-label={label}>
      <title>{label}</title>
      <LinePath data={[...points]} x={({ at }) => x(at)} y={({ waiting }) => y(waiting)} className="stroke" />
    </svg>
  );
}
