import { type CSSProperties, useMemo } from "react";

import { VirtualTable } from "../../parts/virtual_table.tsx";

interface Props {
  name: string;
  run: string;
  titles: readonly string[];
  /** How many characters a value of each column takes, about: a longer one is cut, and whole under the pointer. */
  widths: readonly number[];
  /** How many rows there are. */
  count: number;
  /** undefined while it is not known. */
  valueOf: (row: number, column: number) => string | undefined;
  /** The first and the last row in sight, when scrolling has come to rest. */
  onRest?: (first: number, last: number) => void;
}

const CHARACTER = 0.55; // rem: of a fixed width, with a little room

/** A row for each value of parameters or samples, however many there are. */
export function Values({ name, run, titles, widths, count, valueOf, onRest }: Props) {
  const rows = useMemo(() => Array.from({ length: count }, (_, row) => row), [count]);
  const columns = [
    { key: "number", title: "No.", cell: (row: number) => row },
    ...titles.map((title, at) => ({
      key: `value-${at}`,
      title,
      cell: (row: number) => <Value text={valueOf(row, at)} width={widths[at]!} />,
    })),
  ];
  const style = { "--widths": widths.map((width) => `${width * CHARACTER}rem`).join(" ") } as CSSProperties;
  return (
    <div className="scroll" tabIndex={0} role="region" aria-label={name} style={style}>
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

function Value({ text, width }: { text: string | undefined; width: number }) {
  if (text === undefined) return <span className="none">…</span>;
  return <code title={text.length > width ? text : undefined}>{text}</code>;
}
