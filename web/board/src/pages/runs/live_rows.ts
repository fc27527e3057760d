// The runs in sight, kept up to date in their places.
import type { CombinedError } from "@urql/core";
import { useEffect, useMemo, useRef, useState } from "react";
import { useClient } from "urql";

import { BoardRunsShownDocument, type RunFilter } from "../../gql/graphql.ts";
import type { Run } from "./data.ts";

export interface LiveRow {
  /** As it was known last; the progress is known of runs in sight. */
  run: Run;
  isDeleted: boolean;
  /** Whether the filter still has it. */
  matches: boolean;
}

const MOST = 100;
const NOBODY: readonly Run[] = [];

export interface LiveRows {
  of: (run: Run) => LiveRow;
  /** Says which rows are in sight. */
  look: (rows: readonly Run[]) => void;
  /** Why they are not kept up to date. */
  error: CombinedError | undefined;
}

/** What was said of a run is kept, for when it comes in sight again; in another version of the list it begins anew. */
export function useLiveRows(filter: RunFilter | null, version: number): LiveRows {
  const client = useClient();
  const known = useRef(new Map<string, LiveRow>());
  const seen = useRef(version);
  if (seen.current !== version) {
    seen.current = version;
    known.current = new Map();
  }
  const [, setAnswers] = useState(0);
  const [error, setError] = useState<CombinedError>();
  const [rows, look] = useState(NOBODY);
  const ids = useMemo(() => rows.slice(0, MOST).map(({ id }) => id), [rows]);
  useEffect(() => {
    if (ids.length === 0) return;
    const shown: RunFilter = { id: { in: ids } };
    const variables = { ids, filter: filter ? { and: [filter, shown] } : shown };
    const { unsubscribe } = client
      .subscription(BoardRunsShownDocument, variables)
      .subscribe(({ data, error: said }) => {
        setError(said);
        if (!data) return;
        const matching = new Set(data.live.matching.nodes.map(({ id }) => id));
        data.live.nodes.forEach((node, index) => {
          const before = rows[index]!;
          const run = node?.__typename === "Run" ? node : (known.current.get(before.id)?.run ?? before);
          known.current.set(before.id, { run, isDeleted: node === null, matches: matching.has(before.id) });
        });
        setAnswers((count) => count + 1);
      });
    return unsubscribe;
  }, [ids.join(" "), version]);
  return { of: (run) => known.current.get(run.id) ?? { run, isDeleted: false, matches: true }, look, error };
}
