import { useNow } from "../browser/clock.ts";
import { ago, clockTime, siteTime } from "../values/times.ts";

/** A time in the viewer's zone, with the site's time on hover; a dash without one. */
export function Time({ at }: { at: string | null | undefined }) {
  const now = useNow(60_000);
  if (!at) return <span className="none">–</span>;
  return (
    <time dateTime={at} title={siteTime(at)}>
      {clockTime(at, now)}
    </time>
  );
}

/** How long ago it was; both times, the viewer's and the site's, on hover. */
export function Ago({ at }: { at: string | null | undefined }) {
  const now = useNow(1_000);
  if (!at) return <span className="none">–</span>;
  return (
    <time dateTime={at} title={`${clockTime(at, now)}; ${siteTime(at)}`}>
      {ago(at, now)}
    </time>
  );
}
