import type { BoardOverviewSubscription } from "../../gql/graphql.ts";

export type Overview = BoardOverviewSubscription["live"];
