import { type ReactNode, useMemo } from "react";

import { VirtualTable } from "../../parts/virtual_table.tsx";

interface Props {
  name: string;
  run: string;
  titles: readonly string[];
  /** How many rows there are. */
  count: number;
  valueOf: (row: number, column: number) => ReactNode;
  /** The first and the last row in sight, when scrolling has come to rest. */
  onRest?: (first: number, last: number) => void;
}

/** A row for each value of parameters or samples, however many there are. */
export function Values({ name, run, titles, count, valueOf, onRest }: Props) {
  const rows = useMemo(() => Array.from({ length: count }, (_, row) => row), [count]);
  const columns = [
    { key: "number", title: "No.", cell: (row: number) => row },
    ...titles.map((title, at) => ({ key: `value-${at}`, title, cell: (row: number) => valueOf(row, at) })),
  ];
  return (
    <div className="scroll" tabIndex={0} role="region" aria-label={name}>
      <VirtualTable
        name="values"
        label={name}
        columns={columns}
        rows={rows}
        idOf={String}
        total={count}
        heights={{ wide: 2, narrow: 2 }}
        memory={`values ${run} ${name}`}
        onEnd={() => undefined}
        onRest={(inSight) => inSight.length > 0 && onRest?.(inSight[0]!, inSight.at(-1)!)}
      />
    </div>
  );
}
