import { useMemo } from "react";

import { href } from "../../browser/address.ts";
import { Name } from "../../parts/name.tsx";
import { Section } from "../../parts/section.tsx";
import { Empty } from "../../parts/states.tsx";
import { useSlots } from "../../lists/slots.ts";
import type { Overview } from "./data.ts";

const SHOWN = 10;

type Queue = Overview["queues"][number];

/** The queues with what waits in them, the fullest first. */
export function Queues({ queues }: { queues: Overview["queues"] }) {
  const first = useMemo(() => fullest(queues), [queues]);
  const { slots, sorted, sort } = useSlots(first, ({ queue }) => queue);
  return (
    <Section title="Queues" total={queues.length} all={href(["queues"])} sort={sorted ? undefined : sort}>
      {slots.length === 0 ? (
        <Empty>No run and no worker names a queue.</Empty>
      ) : (
        <div className="scroll" tabIndex={0} role="region" aria-label="Queues with what waits">
          <table>
            <thead>
              <tr>
                <th scope="col">Queue</th>
                <th scope="col">Waiting</th>
                <th scope="col">Consumers</th>
                <th scope="col">Runs</th>
              </tr>
            </thead>
            <tbody>
              {slots.map(({ id, row, left }) => (
                <tr key={id} className={left ? "left" : undefined}>
                  <th scope="row">
                    <a href={href(["runs"], { queue: row.queue })}>
                      <Name>{row.queue}</Name>
                    </a>
                  </th>
                  <td>
                    {left ? <span className="none">no longer listed</span> : (row.waiting?.toLocaleString() ?? "–")}
                  </td>
                  <td>
                    {left ? "–" : (row.consumers ?? "–")}
                    {!left && row.consumers === 0 && (row.waiting ?? 0) > 0 && (
                      <span className="strong tone-failed"> nobody consumes</span>
                    )}
                  </td>
                  <td>{left ? "–" : row.runs.toLocaleString()}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
    </Section>
  );
}

function fullest(queues: readonly Queue[]): Queue[] {
  return [...queues].sort((one, other) => weight(other) - weight(one)).slice(0, SHOWN);
}

function weight({ waiting, runs }: Queue): number {
  return (waiting ?? 0) * 1e6 + runs;
}
