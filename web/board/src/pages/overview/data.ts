import type { BoardHostsSubscription, BoardOverviewSubscription } from "../../gql/graphql.ts";

export type Overview = BoardOverviewSubscription["live"];
export type LiveWorker = BoardHostsSubscription["live"]["liveWorkers"][number];
