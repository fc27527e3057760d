import { href } from "../../browser/address.ts";
import { Tiles } from "../../parts/tiles.tsx";
import { MARKS, RUN_STATUSES, tone, word } from "../../values/statuses.ts";
import type { Overview } from "./data.ts";

/** All runs by status; each number leads to its runs. */
export function Counts({ counts }: { counts: Overview["runCounts"] }) {
  const by = new Map(counts.map(({ status, count }) => [status, count]));
  const tiles = RUN_STATUSES.map((status) => ({
    key: status,
    tone: tone(status),
    count: by.get(status) ?? 0,
    mark: MARKS[status],
    word: word(status),
    href: href(["runs"], { status }),
  }));
  return <Tiles label="Runs by status" tiles={tiles} />;
}
