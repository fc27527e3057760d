import { useNow } from "../browser/clock.ts";
import type { Estimate } from "../values/rates.ts";
import { duration } from "../values/times.ts";
import { Time } from "./time.tsx";

/** How fast a run proceeds, and when it would end if it went on so. */
export function Expected({ estimate }: { estimate: Estimate | null | undefined }) {
  const now = useNow();
  if (!estimate || estimate.rate === 0) return null;
  const rate = estimate.rate >= 10 ? Math.round(estimate.rate) : Number(estimate.rate.toPrecision(2));
  return (
    <span className="expected">
      {rate.toLocaleString()}/min
      {estimate.end !== null && estimate.end > now && (
        <>
          {" "}
          · ends about <Time at={new Date(estimate.end).toISOString()} /> (in {duration((estimate.end - now) / 1000)})
        </>
      )}
    </span>
  );
}
