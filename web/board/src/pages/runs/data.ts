import type { BoardRunsQuery } from "../../gql/graphql.ts";

/** As a page of the list has it; `progress` is asked for of the runs in sight only. */
export type Run = BoardRunsQuery["runs"]["nodes"][number] & { progress?: Progress | null };

interface Progress {
  total: number | null;
  done: number;
  failed: number;
}
