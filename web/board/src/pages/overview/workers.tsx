import { useMemo } from "react";

import { href } from "../../browser/address.ts";
import { Section } from "../../parts/section.tsx";
import { Empty } from "../../parts/states.tsx";
import { useSession } from "../../api/session.tsx";
import { useSlots } from "../../lists/slots.ts";
import type { LiveWorker } from "./data.ts";

interface Host {
  name: string;
  alive: number;
  dead: number;
  tasks: number;
  load: number | null;
}

/** The machines where workers are alive, or were within the last hour. */
export function Workers({ workers }: { workers: readonly LiveWorker[] }) {
  const sources = useSession()?.database.sources;
  const hosts = useMemo(() => byHost(workers), [workers]);
  const { slots } = useSlots(hosts, ({ name }) => name);
  const alive = workers.filter(({ isAlive }) => isAlive).length;
  return (
    <Section title="Workers alive" total={alive} all={href(["workers"])}>
      {slots.length === 0 ? (
        <Empty>
          {sources?.includes("CELERY_EVENTS")
            ? "No worker is alive."
            : "Not known: this server does not hear the workers' heartbeats."}
        </Empty>
      ) : (
        <div className="scroll" tabIndex={0} role="region" aria-label="Workers by host">
          <table>
            <thead>
              <tr>
                <th scope="col">Host</th>
                <th scope="col">Alive</th>
                <th scope="col">Tasks</th>
                <th scope="col">Load</th>
              </tr>
            </thead>
            <tbody>
              {slots.map(({ id, row, left }) => (
                <tr key={id} className={left ? "left" : undefined}>
                  <th scope="row">{row.name}</th>
                  <td>
                    {left ? 0 : row.alive}
                    {row.dead > 0 && !left && <span className="tone-failed"> · {row.dead} gone</span>}
                  </td>
                  <td>{left ? "–" : row.tasks}</td>
                  <td>{(left ? undefined : row.load?.toFixed(1)) ?? "–"}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
    </Section>
  );
}

function byHost(workers: readonly LiveWorker[]): Host[] {
  const hosts = new Map<string, Host>();
  for (const { host, isAlive, activeTasks, loadAverage } of workers) {
    const name = host ?? "host not known";
    const found = hosts.get(name) ?? { name, alive: 0, dead: 0, tasks: 0, load: null };
    found.alive += Number(isAlive);
    found.dead += Number(!isAlive);
    found.tasks += activeTasks ?? 0;
    found.load ??= loadAverage?.[0] ?? null;
    hosts.set(name, found);
  }
  return [...hosts.values()].sort((one, other) => one.name.localeCompare(other.name));
}
