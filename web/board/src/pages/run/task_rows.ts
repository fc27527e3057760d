// The tasks in sight, kept up to date in their places, and how many there are now of what the list looks for.
import type { CombinedError } from "@urql/core";
import { useEffect, useMemo, useRef, useState } from "react";
import { useClient } from "urql";

import { BoardTaskStatesDocument, type TaskFilter } from "../../gql/graphql.ts";
import type { Task } from "./data.ts";

const MOST = 100;
const NOBODY: readonly Task[] = [];

export interface TaskRows {
  /** As it was known last. */
  of: (task: Task) => Task;
  /** Says which rows are in sight. */
  look: (rows: readonly Task[]) => void;
  /** How many match now, and how many of them the first part of the list has; undefined until the server has said it. */
  matching: number | undefined;
  leading: number | undefined;
  error: CombinedError | undefined;
}

/** What was said of a task is kept, for when it comes in sight again. Give the component a `key` of the filters. */
export function useTaskRows(run: string, filter: TaskFilter, leading: TaskFilter): TaskRows {
  const client = useClient();
  const known = useRef(new Map<string, Task>());
  const [now, setNow] = useState<{ matching?: number; leading?: number; error?: CombinedError | undefined }>({});
  const [rows, look] = useState(NOBODY);
  const watched = useMemo(() => JSON.stringify(rows.slice(0, MOST).map(({ path }) => path)), [rows]);
  useEffect(() => {
    const paths = JSON.parse(watched) as string[];
    const variables = { run, paths, filter, leading };
    const { unsubscribe } = client.subscription(BoardTaskStatesDocument, variables).subscribe(({ data, error }) => {
      const seen = data?.live.run;
      for (const task of seen?.shown.nodes ?? []) known.current.set(task.id, task);
      setNow((before) => ({
        ...before,
        ...(seen && { matching: seen.matching.totalCount, leading: seen.leading.totalCount }),
        error,
      }));
    });
    return unsubscribe;
  }, [client, run, watched]);
  return {
    of: (task) => known.current.get(task.id) ?? task,
    look,
    matching: now.matching,
    leading: now.leading,
    error: now.error,
  };
}
