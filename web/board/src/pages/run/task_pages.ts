// The tasks of a run that match, page after page; what is in sight is kept up to date, in its place.
import type { CombinedError } from "@urql/core";
import { useCallback, useEffect, useMemo, useRef, useState } from "react";
import { useClient } from "urql";

import { BoardTasksDocument, BoardTaskStatesDocument } from "../../gql/graphql.ts";
import type { Task } from "./data.ts";
import { type Wanted, filterOf, partsOf } from "./task_filter.ts";

const PAGE = 100;
const BLOCK = 25; // rows by which what is watched moves

interface Loaded {
  rows: readonly Task[];
  /** Where the next page begins: the part of the list, and the cursor in it; null at the end. */
  next: { part: number; after: string | null } | null;
  /** How many tasks the first part had when it was asked for, and how many matched right after. */
  leading: number | null;
  matching: number | null;
}

const NOTHING: Loaded = { rows: [], next: { part: 0, after: null }, leading: null, matching: null };

export interface TaskPages {
  rows: readonly Task[];
  /** How many match now; undefined until the server has said it. */
  total: number | undefined;
  isEnd: boolean;
  fetching: boolean;
  error: CombinedError | undefined;
  /** Whether the rows stand in another order than the server's, or others match now. */
  isOutdated: boolean;
  more: () => void;
  again: () => void;
}

/** `sight`: the first and the last row in sight. Give the component that uses it a `key` of what is wanted. */
export function useTaskPages(run: string, wanted: Wanted, sight: { first: number; last: number }): TaskPages {
  const client = useClient();
  const parts = useMemo(() => partsOf(wanted), [wanted]);
  const [loaded, load] = useState(NOTHING);
  const [fetching, setFetching] = useState(false);
  const [error, fail] = useState<CombinedError>();
  const [now, setNow] = useState<{ matching: number; leading: number }>();
  const asked = useRef<Loaded | null>(null);

  const ask = useCallback(
    async (from: Loaded) => {
      if (!from.next || asked.current === from) return;
      asked.current = from;
      setFetching(true);
      const { part, after } = from.next;
      const { data, error: failure } = await client
        .query(BoardTasksDocument, { run, first: PAGE, after, ...parts[part]! })
        .toPromise();
      if (asked.current !== from) return; // asked anew meanwhile
      setFetching(false);
      fail(failure);
      if (failure) {
        asked.current = null;
        return;
      }
      const found = data?.run?.tasks;
      const goesOn = found?.pageInfo.hasNextPage ?? false;
      const nextPart = part + 1 < parts.length ? { part: part + 1, after: null } : null;
      load({
        rows: found ? joined(from.rows, found.nodes) : from.rows,
        next: goesOn ? { part, after: found!.pageInfo.endCursor ?? null } : nextPart,
        leading: from.leading ?? found?.totalCount ?? 0,
        matching: from.matching,
      });
    },
    [client, run, parts],
  );

  // The first page, and the next part where one ended before its page was full.
  const isShort = loaded.rows.length < PAGE && loaded.next !== null;
  useEffect(() => {
    if (isShort && !error) void ask(loaded);
  }, [isShort, loaded, error, ask]);

  const first = Math.floor(Math.max(sight.first, 0) / BLOCK) * BLOCK;
  const last = Math.ceil((sight.last + 1) / BLOCK) * BLOCK;
  const paths = loaded.rows.slice(first, last).map(({ path }) => path);
  const watched = paths.join("\n");
  useEffect(() => {
    const variables = { run, paths: watched ? watched.split("\n") : [], filter: filterOf(wanted), leading: parts[0]!.filter };
    const { unsubscribe } = client.subscription(BoardTaskStatesDocument, variables).subscribe(({ data, error: failure }) => {
      if (failure) fail(failure);
      const seen = data?.live.run;
      if (!seen) return;
      setNow({ matching: seen.matching.totalCount, leading: seen.leading.totalCount });
      load((before) => renewed(before, seen.shown.nodes, seen.matching.totalCount));
    });
    return unsubscribe;
  }, [client, run, watched, wanted, parts]);

  const again = useCallback(() => {
    asked.current = null;
    fail(undefined);
    load({ ...NOTHING });
  }, []);

  const isOutdated =
    now !== undefined &&
    loaded.matching !== null && // else `now` may be older than the rows
    (now.leading !== loaded.leading || now.matching !== loaded.matching);
  // What the server could not read at once, it reads a little later: there is nothing yet that could jump.
  const isRead = isOutdated && loaded.rows.length === 0 && loaded.next === null;
  useEffect(() => {
    if (isRead) again();
  }, [isRead, again]);

  return {
    rows: loaded.rows,
    total: now?.matching,
    isEnd: loaded.next === null,
    fetching,
    error,
    isOutdated,
    more: () => void ask(loaded),
    again,
  };
}

/** A task that failed between two pages is in both parts of the list: it stays where it is first. */
function joined(rows: readonly Task[], more: readonly Task[]): Task[] {
  const known = new Set(rows.map(({ id }) => id));
  return [...rows, ...more.filter(({ id }) => !known.has(id))];
}

function renewed(before: Loaded, tasks: readonly Task[], matching: number): Loaded {
  const newer = new Map(tasks.map((task) => [task.id, task]));
  const rows = newer.size > 0 ? before.rows.map((row) => newer.get(row.id) ?? row) : before.rows;
  return { ...before, rows, matching: before.matching ?? (before.leading === null ? null : matching) };
}
