// Queues as the page shows them: what needs a look comes first.
import type { BoardQueuesSubscription } from "../../gql/graphql.ts";

type Counted = BoardQueuesSubscription["live"]["queues"][number];

export interface Queue extends Counted {
  id: string;
}

export const KINDS = ["unconsumed", "waiting", "empty"] as const;
export type Kind = (typeof KINDS)[number];

export function isOf({ waiting, consumers }: Queue, kind: Kind): boolean {
  if (kind === "unconsumed") return (waiting ?? 0) > 0 && consumers === 0;
  return kind === "waiting" ? (waiting ?? 0) > 0 : waiting === 0;
}

/** First those in which something waits that nobody takes, then the fullest. */
export function queuesOf(counted: readonly Counted[]): Queue[] {
  return counted
    .map((each) => ({ ...each, id: each.queue }))
    .sort(
      (one, other) =>
        Number(isOf(other, "unconsumed")) - Number(isOf(one, "unconsumed")) ||
        (other.waiting ?? -1) - (one.waiting ?? -1) ||
        inOrder(one.queue, other.queue),
    );
}

const { compare: inOrder } = new Intl.Collator(undefined, { numeric: true });
