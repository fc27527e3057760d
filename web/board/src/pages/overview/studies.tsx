import { href } from "../../browser/address.ts";
import { Name } from "../../parts/name.tsx";
import { Section } from "../../parts/section.tsx";
import { ShareBar } from "../../parts/share_bar.tsx";
import { Empty } from "../../parts/states.tsx";
import { Ago } from "../../parts/time.tsx";
import { useSlots } from "../../lists/slots.ts";
import { RUN_STATUSES } from "../../values/statuses.ts";
import type { Overview } from "./data.ts";

type Study = Overview["studies"]["nodes"][number];

export function Studies({ studies }: { studies: Overview["studies"] }) {
  const { slots, sorted, sort } = useSlots(studies.nodes, ({ id }) => id);
  return (
    <Section title="Studies" total={studies.totalCount} sort={sorted ? undefined : sort}>
      {slots.length === 0 ? (
        <Empty>
          There is no study yet: <code>merlin run</code> makes one.
        </Empty>
      ) : (
        <ul className="rows studies">
          {slots.map(({ id, row, left }) => (
            <li key={id} className={left ? "left" : undefined}>
              <a className="study-name" href={href(["runs"], { study: row.name })}>
                <Name>{row.name}</Name>
              </a>
              <ShareBar shares={sharesOf(row)} label={`Runs of ${row.name}`} />
              {left ? (
                <span className="none gone">no longer listed</span>
              ) : (
                <>
                  <span className="numbers">{total(row).toLocaleString()}</span>
                  <Ago at={row.latestRun?.launchedAt} />
                </>
              )}
            </li>
          ))}
        </ul>
      )}
    </Section>
  );
}

function sharesOf(study: Study) {
  const by = new Map(study.runCounts.map(({ status, count }) => [status, count]));
  return RUN_STATUSES.map((status) => ({
    status,
    count: by.get(status) ?? 0,
    href: href(["runs"], { study: study.name, status }),
  }));
}

function total(study: Study): number {
  return study.runCounts.reduce((sum, { count }) => sum + count, 0);
}
