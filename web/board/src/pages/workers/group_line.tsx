import { href } from "../../browser/address.ts";
import { type Group, type Grouping, type Sum, sumOf } from "./groups.ts";

/** The head of a group: whom it is about, and how its workers are in sum. */
export function GroupLine({ group, by, left }: { group: Group; by: Grouping; left: boolean }) {
  const { title, logical, workers } = group;
  const sum = sumOf(workers);
  return (
    <div className={`group-line${left ? " left" : ""}`}>
      <h3>{title}</h3>
      <span className="numbers">{left ? "gone" : told(sum, workers.length)}</span>
      {logical && (
        <span className="queues">
          {logical.queues.map((queue) => (
            <a key={queue} href={href(["queues"], { q: queue })}>
              {queue}
            </a>
          ))}
        </span>
      )}
      {by === "host" && sum.load && (
        <span className="numbers">load {sum.load.map((each) => each.toFixed(1)).join(" · ")}</span>
      )}
    </div>
  );
}

function told({ states, active }: Sum, total: number): string {
  if (total === 0) return "no worker was started";
  if (states.unknown > 0) return `${total.toLocaleString()} recorded`;
  const tasks = active === 1 ? "1 task" : `${active.toLocaleString()} tasks`;
  return `${states.alive.toLocaleString()} of ${total.toLocaleString()} alive · ${tasks}`;
}
