import { href } from "../../browser/address.ts";
import { MARKS, RUN_STATUSES, tone, word } from "../../values/statuses.ts";
import type { Overview } from "./data.ts";

/** All runs by status; each number leads to its runs. */
export function Counts({ counts }: { counts: Overview["runCounts"] }) {
  const by = new Map(counts.map(({ status, count }) => [status, count]));
  return (
    <ul className="tiles" aria-label="Runs by status">
      {RUN_STATUSES.map((status) => (
        <li key={status}>
          <a className={`tile ${tone(status)}`} href={href(["runs"], { status })}>
            <span className="number">{(by.get(status) ?? 0).toLocaleString()}</span>
            <span className="word">
              <span aria-hidden="true">{MARKS[status]}</span> {word(status)}
            </span>
          </a>
        </li>
      ))}
    </ul>
  );
}
