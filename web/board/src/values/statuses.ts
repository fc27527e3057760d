// The statuses of runs, tasks and workers: their order, their words, their marks. A colour never stands alone.
import type { RunStatus, Severity, TaskStatus, WorkerStatus } from "../gql/graphql.ts";

/** In the order of bars and legends: what ended well, what is at work, what is wrong. */
export const RUN_STATUSES: readonly RunStatus[] = [
  "COMPLETED",
  "RUNNING",
  "QUEUED",
  "INITIALIZED",
  "CANCELLED",
  "FAILED",
  "UNKNOWN",
];

export const TASK_STATUSES: readonly TaskStatus[] = [
  "SUCCEEDED",
  "DRY_RUN",
  "RUNNING",
  "RETRYING",
  "WAITING",
  "CANCELLED",
  "FAILED",
  "UNKNOWN",
];

export type AnyStatus = RunStatus | TaskStatus | WorkerStatus | Severity;

/** One character beside the word, for eyes that see no colours. */
export const MARKS: Record<AnyStatus, string> = {
  COMPLETED: "✓",
  SUCCEEDED: "✓",
  RUNNING: "▶",
  QUEUED: "…",
  WAITING: "…",
  INITIALIZED: "○",
  RETRYING: "↻",
  REBOOTING: "↻",
  CANCELLED: "◼",
  STOPPED: "◼",
  FAILED: "✕",
  STALLED: "!",
  UNKNOWN: "?",
  DRY_RUN: "◇",
  ERROR: "✕",
  WARNING: "!",
  INFO: "i",
};

export function word(status: AnyStatus): string {
  const text = status.toLowerCase().replaceAll("_", " ");
  return text[0]!.toUpperCase() + text.slice(1);
}

/** The class that colours it: `--status` in the style sheet. */
export function tone(status: AnyStatus): string {
  return `tone-${status.toLowerCase().replaceAll("_", "-")}`;
}
