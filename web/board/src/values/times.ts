// How times and durations are written.

const OFFSET = /(Z|[+-]\d\d:\d\d)$/;
const DAY = 86_400;

// Made once: to make one takes as long as to render a row of a table.
const CLOCK = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const DATE = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric" });
const DATE_AND_YEAR = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric", year: "numeric" });

/** In the viewer's zone: the time alone if it is today's. */
export function clockTime(at: string, now: number): string {
  const date = new Date(at);
  const time = CLOCK.format(date);
  if (date.toDateString() === new Date(now).toDateString()) return time;
  const sameYear = date.getFullYear() === new Date(now).getFullYear();
  return `${(sameYear ? DATE : DATE_AND_YEAR).format(date)}, ${time}`;
}

/** As the clocks of the site show it: the API's times have the offset of its zone. */
export function siteTime(at: string): string {
  const offset = OFFSET.exec(at)?.[1] ?? "Z";
  const local = at
    .replace(OFFSET, "")
    .replace("T", " ")
    .replace(/\.\d+$/, "");
  return `${local} at the site (UTC${offset === "Z" ? "" : offset})`;
}

/** Two units at most: `2 d 4 h`, `3 min 20 s`. */
export function duration(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  const parts: [number, string][] = [
    [Math.floor(whole / DAY), "d"],
    [Math.floor((whole % DAY) / 3600), "h"],
    [Math.floor((whole % 3600) / 60), "min"],
    [whole % 60, "s"],
  ];
  const first = parts.findIndex(([count]) => count > 0);
  return parts
    .slice(first, first + 2)
    .filter(([count]) => count > 0)
    .map(([count, unit]) => `${count} ${unit}`)
    .join(" ");
}

/** One unit, which changes seldom: `3 min ago`. A time that is to come by another clock is now. */
export function ago(at: string, now: number): string {
  const seconds = Math.max(0, (now - Date.parse(at)) / 1000);
  if (seconds < 5) return "now";
  if (seconds < 60) return `${Math.floor(seconds / 5) * 5} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 2 * DAY) return `${Math.floor(seconds / 3600)} h ago`;
  return `${Math.floor(seconds / DAY)} days ago`;
}
