import { type AnyStatus, MARKS, tone, word } from "../values/statuses.ts";

/** A status as mark and word. */
export function Status({ status }: { status: AnyStatus }) {
  return (
    <span className={`status ${tone(status)}`}>
      <span aria-hidden="true">{MARKS[status]}</span> {word(status)}
    </span>
  );
}
