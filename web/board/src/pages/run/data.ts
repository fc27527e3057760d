import type {
  BoardRunStepsSubscription,
  BoardRunSubscription,
  BoardRunWorkersSubscription,
  BoardTaskSubscription,
} from "../../gql/graphql.ts";

export type Run = NonNullable<BoardRunSubscription["live"]["run"]>;
export type Step = NonNullable<BoardRunStepsSubscription["live"]["run"]>["stepRuns"][number];
export type Worker = NonNullable<BoardRunWorkersSubscription["live"]["run"]>["workers"][number];
export type Task = NonNullable<BoardTaskSubscription["live"]["task"]>;
