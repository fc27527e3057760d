// The problems in sight, kept up to date in their places.
import type { CombinedError } from "@urql/core";
import { useEffect, useMemo, useRef, useState } from "react";
import { useClient } from "urql";

import { BoardProblemsShownDocument } from "../../gql/graphql.ts";
import type { Count, Problem } from "./problems.ts";

const MOST = 100;
const NOBODY: readonly Problem[] = [];

interface Said {
  gone: ReadonlySet<string>;
  repairable: ReadonlyMap<string, boolean>;
  /** How many there are, at the moment at which the rows in sight were looked for. */
  counts: readonly Count[] | undefined;
}

export interface Shown {
  /** The ids of those that were seen to be gone. */
  gone: ReadonlySet<string>;
  counts: readonly Count[] | undefined;
  of: (problem: Problem) => Problem;
  /** Says which rows are in sight. */
  look: (rows: readonly Problem[]) => void;
  /** Why they are not kept up to date. */
  error: CombinedError | undefined;
}

const nothing = (): Said => ({ gone: new Set(), repairable: new Map(), counts: undefined });

/** What was said of a problem is kept, for when it comes in sight again; in another version of the list it begins anew. */
export function useShown(version: number): Shown {
  const client = useClient();
  const [error, setError] = useState<CombinedError>();
  const [rows, look] = useState(NOBODY);
  const said = useRef({ version, ...nothing() });
  if (said.current.version !== version) said.current = { version, ...nothing() };
  const [, setAnswers] = useState(0);
  const keys = useMemo(() => rows.slice(0, MOST).map(({ id }) => id), [rows]);
  useEffect(() => {
    if (keys.length === 0) return;
    const { unsubscribe } = client
      .subscription(BoardProblemsShownDocument, { keys })
      .subscribe(({ data, error: failed }) => {
        setError(failed);
        if (!data) return;
        said.current = { version, ...heard(said.current, keys, data.live.integrity) };
        setAnswers((count) => count + 1);
      });
    return unsubscribe;
  }, [keys.join(" "), version]);
  const { gone, repairable, counts } = said.current;
  const of = (problem: Problem) => ({ ...problem, repairable: repairable.get(problem.id) ?? problem.repairable });
  return { gone, counts, of, look, error };
}

interface Answer {
  counts: readonly Count[];
  problems: readonly { id: string; repairable: boolean }[];
}

function heard(before: Said, asked: readonly string[], { counts, problems }: Answer): Said {
  const gone = new Set([...before.gone, ...asked]);
  const repairable = new Map(before.repairable);
  for (const problem of problems) {
    gone.delete(problem.id);
    repairable.set(problem.id, problem.repairable);
  }
  return { gone, repairable, counts };
}
