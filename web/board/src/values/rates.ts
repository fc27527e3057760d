// How fast runs proceed, from what was seen of their progress.

export interface Seen {
  /** Milliseconds since the epoch. */
  at: number;
  done: number;
}

export interface Estimate {
  /** Tasks a minute. */
  rate: number;
  /** Milliseconds since the epoch; null while nothing proceeds. */
  end: number | null;
}

const WINDOW = 10 * 60_000;
const SHORTEST = 5_000;
const LAST = 8.64e15; // the last time that JavaScript knows: nobody waits so long

/** Adds what was seen, and forgets what is older than ten minutes, but for one observation before them. */
export function seenWith(seen: readonly Seen[], latest: Seen): Seen[] {
  const last = seen.at(-1);
  if (last && (latest.at <= last.at || latest.done < last.done)) return latest.done < last.done ? [latest] : [...seen];
  const all = [...seen, latest];
  const first = all.findLastIndex(({ at }) => at <= latest.at - WINDOW);
  return first > 0 ? all.slice(first) : all;
}

type Maybe<T> = T | null | undefined;

/** From the observations of the last ten minutes; while these are too few, or do not differ, from the run's start. */
export function estimate(seen: readonly Seen[], total: Maybe<number>, startedAt: Maybe<string>): Estimate | null {
  const last = seen.at(-1);
  if (!last) return null;
  const first = seen[0]!;
  const span = last.at - first.at;
  if (span >= WINDOW || (span >= SHORTEST && last.done > first.done)) {
    return over(span, last.done - first.done, last, total);
  }
  const whole = startedAt ? last.at - Date.parse(startedAt) : Number.NaN;
  return whole >= SHORTEST ? over(whole, last.done, last, total) : null;
}

function over(span: number, done: number, last: Seen, total: Maybe<number>): Estimate {
  const rate = (60_000 * done) / span;
  const end = total == null ? Number.NaN : last.at + (60_000 * (total - last.done)) / rate;
  return { rate, end: Math.abs(end) <= LAST ? end : null };
}
