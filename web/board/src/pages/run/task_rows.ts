// The tasks in sight, kept up to date in their places, and how many there are now of what the list looks for.
import type { CombinedError } from "@urql/core";
import { useEffect, useMemo, useRef, useState } from "react";
import { useClient } from "urql";

import { BoardTaskChangesDocument, BoardTaskCountsDocument, type TaskFilter } from "../../gql/graphql.ts";
import { useLive } from "../../api/live.ts";
import type { Task } from "./data.ts";

const MOST = 100;
const NOBODY: readonly Task[] = [];
const SHOWN_EVERY = 100;

export interface TaskRows {
  /** As it was known last. */
  of: (task: Task) => Task;
  /** Says which rows are in sight. */
  look: (rows: readonly Task[]) => void;
  /** How many match now; undefined until the server has said it. */
  matching: number | undefined;
  /** How many of these have failed; undefined also where they do not come first. */
  failed: number | undefined;
  error: CombinedError | undefined;
}

interface Options {
  hasFailedFirst: boolean;
  throttle: number;
}

/** What was said of a task is kept, for when it comes in sight again. Give the component a `key` of the filters. */
export function useTaskRows(run: string, filter: TaskFilter, options: Options): TaskRows {
  const client = useClient();
  const known = useRef(new Map<string, Task>());
  const [, setAnswers] = useState(0);
  const [failure, fail] = useState<CombinedError>();
  const [rows, look] = useState(NOBODY);
  const { data, error } = useLive(BoardTaskCountsDocument, { run, filter, ...options });
  const watched = useMemo(() => JSON.stringify(rows.slice(0, MOST).map(({ path }) => path)), [rows]);
  useEffect(() => {
    const paths = JSON.parse(watched) as string[];
    if (paths.length === 0) return;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const changes = client.subscription(BoardTaskChangesDocument, { run, paths });
    const { unsubscribe } = changes.subscribe((answer) => {
      fail(answer.error);
      const task = answer.data?.taskChanges.task;
      if (task) known.current.set(task.id, task);
      timer ??= setTimeout(() => {
        timer = undefined;
        setAnswers((count) => count + 1);
      }, SHOWN_EVERY);
    });
    return () => {
      clearTimeout(timer);
      unsubscribe();
    };
  }, [client, run, watched]);
  return {
    of: (task) => known.current.get(task.id) ?? task,
    look,
    matching: data?.run?.matching.totalCount,
    failed: data?.run?.failed?.totalCount,
    error: error ?? failure,
  };
}
