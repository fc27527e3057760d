// The board's pure modules, tried with many random cases. Its argument names the group; what is wrong is thrown.
import assert from "node:assert/strict";

import { href, parse } from "../../../web/board/src/browser/address.ts";
import { isOutdated } from "../../../web/board/src/api/errors.ts";
import { told } from "../../../web/board/src/parts/states.tsx";
import { type Seen, estimate, seenWith } from "../../../web/board/src/values/rates.ts";
import { type Slot, isSorted, placed } from "../../../web/board/src/lists/slots.ts";
import { MARKS, RUN_STATUSES, TASK_STATUSES, tone, word } from "../../../web/board/src/values/statuses.ts";
import { ago, clockTime, duration, siteTime } from "../../../web/board/src/values/times.ts";

const CASES = 2_000;
const MINUTE = 60_000;

/** The same numbers in each run: mulberry32. */
function chance(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

const random = chance(21);
const below = (limit: number) => Math.floor(random() * limit);
const some = <T>(values: readonly T[]): T => values[below(values.length)]!;

interface Row {
  id: string;
  version: number;
}

/** Distinct rows in any order; each list has versions of its own. */
function rowsOf(version: number): Row[] {
  const ids = Array.from({ length: 12 }, (_, index) => `run-${index}`).sort(() => random() - 0.5);
  return ids.slice(0, below(9)).map((id) => ({ id, version }));
}

const idOf = ({ id }: Row) => id;

const GROUPS: Record<string, (given: string[]) => void> = {
  slots() {
    for (let each = 0; each < CASES; each++) {
      let slots: Slot<Row>[] = [];
      let longest = 0;
      for (let version = 0; version < 12; version++) {
        const rows = rowsOf(version);
        const next = placed(slots, rows, idOf);
        longest = Math.max(longest, rows.length);
        const present = next.filter(({ left }) => !left);
        // No row is lost or doubled, and each is as it was sent last.
        assert.deepEqual(present.map(({ row }) => row).sort(byId), [...rows].sort(byId));
        assert.equal(new Set(next.map(({ id }) => id)).size, next.length);
        // What was known keeps its place; a place goes only to who comes instead of one that left.
        slots.forEach(({ id }, index) => {
          if (rows.some((row) => row.id === id)) assert.equal(next[index]!.id, id);
          else if (next[index]!.left) assert.equal(next[index]!.id, id);
        });
        for (const { id, left } of next) assert.equal(left, !rows.some((row) => row.id === id));
        // While a place is free nobody comes at the end, so the list never has more places than it had rows.
        if (next.length > slots.length) assert.ok(next.every(({ left }) => !left));
        assert.equal(next.length, longest);
        assert.equal(isSorted(next, rows, idOf), next.map(({ id }) => id).join() === rows.map(idOf).join());
        assert.ok(isSorted(placed([], rows, idOf), rows, idOf));
        slots = next;
      }
    }
  },

  rates() {
    for (let each = 0; each < CASES; each++) {
      // A run that proceeds evenly: the rate is its slope, whatever was seen of it, and the end is when all is done.
      const perMinute = 1 + below(600);
      const total = 100_000;
      const start = Date.parse("2026-01-01T00:00:00Z");
      let seen: Seen[] = [];
      let at = start + below(60 * MINUTE);
      for (let observation = 0; observation < 50; observation++) {
        at += 1 + below(MINUTE);
        seen = seenWith(seen, { at, done: (perMinute * (at - start)) / MINUTE });
      }
      const found = estimate(seen, total, new Date(start).toISOString())!;
      assert.ok(Math.abs(found.rate - perMinute) < 1e-6 * perMinute);
      assert.ok(Math.abs(found.end! - (start + (total / perMinute) * MINUTE)) < 1_000);
      // Ten minutes are kept, and one observation before them.
      assert.ok(seen.length < 3 || at - seen[1]!.at < 10 * MINUTE);
      assert.ok(seen.every((one, index) => index === 0 || one.at > seen[index - 1]!.at));
      // Who begins anew, with fewer tasks done, is not held for slow.
      assert.deepEqual(seenWith(seen, { at: at + 1, done: 0 }), [{ at: at + 1, done: 0 }]);
      // What is told again, or late, changes nothing.
      assert.deepEqual(seenWith(seen, seen.at(-1)!), seen);
    }
    // What stands still for ten minutes has no rate and no end, however fast it was before.
    let still: Seen[] = [];
    const start = Date.parse("2026-01-01T00:00:00Z");
    for (let minute = 1; minute <= 60; minute++) {
      still = seenWith(still, { at: start + minute * MINUTE, done: Math.min(minute, 30) });
    }
    assert.deepEqual(estimate(still, 100, new Date(start).toISOString()), { rate: 0, end: null });
    // Nothing is claimed from less than five seconds, and without a start.
    assert.equal(estimate([], 10, new Date(start).toISOString()), null);
    assert.equal(estimate([{ at: start + 4_000, done: 1 }], 10, new Date(start).toISOString()), null);
    assert.equal(estimate([{ at: start + MINUTE, done: 1 }], 10, null), null);
    assert.equal(estimate([{ at: start, done: 1 }], 1e9, "1970-01-01T00:00:00Z")!.end, null); // no date is so late
    assert.deepEqual(estimate([{ at: start + MINUTE, done: 2 }], 4, new Date(start).toISOString()), {
      rate: 2,
      end: start + 2 * MINUTE,
    });
    assert.equal(estimate([{ at: start + MINUTE, done: 2 }], null, new Date(start).toISOString())!.end, null);
  },

  address() {
    const characters = [..."abz09 /?#&=%+äß€😀\"'<>\\;:@,.[]{}|^`~\n"];
    const text = () => Array.from({ length: 1 + below(8) }, () => some(characters)).join("");
    for (let each = 0; each < CASES; each++) {
      const path = Array.from({ length: below(4) }, text);
      const pair = () => [text(), some([text(), "", null, undefined])];
      const params = Object.fromEntries(Array.from({ length: below(4) }, pair));
      const fragment = href(path, params);
      const url = new URL(fragment, "http://host/prefix/board"); // as it stands in an address that is sent to somebody
      assert.equal(url.pathname, "/prefix/board");
      const read = parse(url.hash);
      assert.deepEqual(read.path, path);
      const given = Object.entries(params).filter(([, value]) => value);
      assert.deepEqual([...read.params].sort(), given.sort());
      assert.equal(href(read.path, Object.fromEntries(read.params)), fragment);
      assert.doesNotThrow(() => parse(text())); // what anybody may write there
    }
    assert.deepEqual(parse("").path, []);
    assert.deepEqual(parse("#/runs/%E0%A4%A").path, ["runs", "%E0%A4%A"]);
  },

  times() {
    for (let each = 0; each < CASES; each++) {
      const seconds = below(10 ** (1 + below(7)));
      const sizes: Record<string, number> = { d: 86_400, h: 3_600, min: 60, s: 1 };
      const parts = duration(seconds).split(/ (?=\d)/);
      const sum = parts.reduce((total, part) => total + Number(part.split(" ")[0]) * sizes[part.split(" ")[1]!]!, 0);
      assert.ok(parts.length <= 2);
      assert.ok(seconds - sum >= 0 && seconds - sum < sizes[parts.at(-1)!.split(" ")[1]!]! * 60, duration(seconds));
    }
    assert.deepEqual([0, -5, 59.6, 60, 3_600, 90_000, 187_200].map(duration), [
      ...["0 s", "0 s", "1 min", "1 min", "1 h", "1 d 1 h", "2 d 4 h"],
    ]);
    const now = Date.parse("2026-06-01T12:00:00Z");
    const before = (seconds: number) => ago(new Date(now - seconds * 1_000).toISOString(), now);
    assert.deepEqual([-60, 0, 4, 5, 59, 60, 3_599, 3_600, 172_799, 172_800].map(before), [
      ...["now", "now", "now", "5 s ago", "55 s ago", "1 min ago", "59 min ago", "1 h ago", "47 h ago", "2 days ago"],
    ]);
    assert.equal(siteTime("2026-06-01T14:00:00.250000+02:00"), "2026-06-01 14:00:00 at the site (UTC+02:00)");
    assert.equal(siteTime("2026-06-01T12:00:00Z"), "2026-06-01 12:00:00 at the site (UTC)");
    // In the viewer's zone, which TZ names here: Kathmandu is 5 h 45 min before UTC.
    assert.match(clockTime("2026-06-01T10:00:00+02:00", now), /^0?1:45:00 PM$|^13:45:00$/);
    assert.match(clockTime("2026-05-31T20:00:00Z", now), /^0?1:45:00 AM$/); // today, in that zone
    assert.match(clockTime("2026-05-31T10:00:00Z", now), /^May 31, 0?3:45:00 PM$/);
    assert.match(clockTime("2024-05-31T10:00:00Z", now), /^May 31, 2024, 0?3:45:00 PM$/);
  },

  errors() {
    const network = (networkError: Error, status?: number) =>
      ({ networkError, response: status && { status }, graphQLErrors: [] });
    const coded = (code?: string) => ({ graphQLErrors: [{ message: "as the server says it", extensions: { code } }] });
    const messages = (error: unknown) => told(error as never).map(({ message }) => message);
    // What was not answered may have been done; what was not sent was not.
    assert.deepEqual(messages(network(new TypeError("Failed to fetch"))), ["The server can't be reached."]);
    assert.deepEqual(messages(network(new Error("no JSON"), 502)), ["The server answered with 502."]);
    assert.match(messages(network(new DOMException("signal timed out", "TimeoutError")))[0]!, /did not answer in time/);
    // An error of the server keeps its words and its code, but for those that only a new page mends.
    assert.deepEqual(told(coded("FORBIDDEN") as never), [{ message: "as the server says it", code: "FORBIDDEN" }]);
    assert.deepEqual(told(coded() as never), [{ message: "as the server says it", code: undefined }]);
    for (const code of ["PERSISTED_QUERY_NOT_FOUND", "UNTRUSTED_DOCUMENT"]) {
      assert.ok(isOutdated(coded(code) as never));
      assert.match(messages(coded(code))[0]!, /load it anew/);
    }
    assert.ok(!isOutdated(coded("FORBIDDEN") as never));
  },

  /** Given: the schema's run statuses, task statuses, and all that are shown as a mark, each joined by commas. */
  statuses([runs = "", tasks = "", all = ""]) {
    assert.deepEqual([...RUN_STATUSES].sort(), runs.split(","));
    assert.deepEqual([...TASK_STATUSES].sort(), tasks.split(","));
    assert.deepEqual(Object.keys(MARKS).sort(), all.split(","));
    for (const status of Object.keys(MARKS) as (keyof typeof MARKS)[]) {
      assert.equal([...MARKS[status]].length, 1);
      assert.match(word(status), /^[A-Z][a-z ]+$/);
      assert.match(tone(status), /^tone-[a-z-]+$/);
    }
  },
};

function byId(one: Row, other: Row): number {
  return one.id.localeCompare(other.id);
}

const [name = "", ...given] = process.argv.slice(2);
GROUPS[name]!(given);
