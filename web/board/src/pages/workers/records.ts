// The records of workers, followed one by one: thousands of them are sent once, not with every change.
import type { CombinedError } from "@urql/core";
import { useEffect, useReducer, useState } from "react";
import { useClient } from "urql";

import { isOutdated } from "../../api/errors.ts";
import { BoardWorkerRecordsDocument, type BoardWorkerRecordsSubscription } from "../../gql/graphql.ts";

type Change = BoardWorkerRecordsSubscription["changes"];
type Node = NonNullable<Change["node"]>;
export type LogicalRecord = Extract<Node, { __typename: "LogicalWorker" }>;
export type PhysicalRecord = Extract<Node, { __typename: "PhysicalWorker" }>;

export interface Records {
  logical: ReadonlyMap<string, LogicalRecord>;
  physical: ReadonlyMap<string, PhysicalRecord>;
}

const AT_ONCE = 100; // milliseconds in which changes are gathered
const ASK_AGAIN = 10_000; // milliseconds after which the server is asked anew that refused

/** What is known after some changes. It is shown when it is complete: `complete` follows the end of a snapshot. */
export class Gathered {
  complete: Records | undefined;
  private logical = new Map<string, LogicalRecord>();
  private physical = new Map<string, PhysicalRecord>();
  private isWhole = false;

  take({ kind, entityId, node }: Change): void {
    if (kind === "SNAPSHOT_BEGIN") {
      this.logical = new Map();
      this.physical = new Map();
      this.isWhole = false;
    } else if (kind === "SNAPSHOT_END") {
      this.isWhole = true;
    } else if (node?.__typename === "LogicalWorker") {
      this.logical.set(entityId, node);
    } else if (node?.__typename === "PhysicalWorker") {
      this.physical.set(entityId, node);
    } else {
      this.logical.delete(entityId);
      this.physical.delete(entityId);
    }
  }

  /** The copies that a page may keep; while a snapshot comes in, those from before it. */
  records(): Records | undefined {
    if (this.isWhole) this.complete = { logical: new Map(this.logical), physical: new Map(this.physical) };
    return this.complete;
  }
}

export function useRecords(): { records: Records | undefined; error: CombinedError | undefined } {
  const client = useClient();
  const [records, setRecords] = useState<Records>();
  const [error, setError] = useState<CombinedError>();
  const [attempt, tryAgain] = useReducer((count: number) => count + 1, 0);
  const isRefused = error !== undefined && !isOutdated(error);
  useEffect(() => {
    if (!isRefused) return;
    const timer = setTimeout(tryAgain, ASK_AGAIN);
    return () => clearTimeout(timer);
  }, [isRefused, attempt]);
  useEffect(() => {
    const gathered = new Gathered();
    let timer: ReturnType<typeof setTimeout> | undefined;
    const show = () => {
      timer = undefined;
      setRecords(gathered.records());
    };
    const { unsubscribe } = client.subscription(BoardWorkerRecordsDocument, {}).subscribe((result) => {
      setError(result.error);
      if (!result.data) return;
      gathered.take(result.data.changes);
      timer ??= setTimeout(show, AT_ONCE);
    });
    return () => {
      clearTimeout(timer);
      unsubscribe();
    };
  }, [client, attempt]);
  return { records, error };
}
