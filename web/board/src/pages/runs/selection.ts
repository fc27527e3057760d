// The runs that are selected, of those that are loaded.
import { useRef, useState } from "react";

import type { Run } from "./data.ts";

export interface Selection {
  runs: ReadonlyMap<string, Run>;
  has: (run: Run) => boolean;
  /** Of a range: all from the row that was toggled last become as that one is. */
  toggle: (index: number, isRange: boolean) => void;
  all: () => void;
  clear: () => void;
  /** Forgets these. */
  drop: (ids: readonly string[]) => void;
}

export function useSelection(rows: readonly Run[]): Selection {
  const [runs, select] = useState<ReadonlyMap<string, Run>>(new Map());
  const anchor = useRef<{ index: number; isOn: boolean }>(undefined);
  const toggle = (index: number, isRange: boolean) => {
    const next = new Map(runs);
    const from = isRange ? anchor.current : undefined;
    const isOn = from?.isOn ?? !runs.has(rows[index]!.id);
    const [first, last] = [index, from?.index ?? index].sort((a, b) => a - b) as [number, number];
    for (const run of rows.slice(first, last + 1)) {
      if (isOn) next.set(run.id, run);
      else next.delete(run.id);
    }
    anchor.current = { index, isOn };
    select(next);
  };
  const drop = (ids: readonly string[]) => {
    const gone = new Set(ids);
    select(new Map([...runs].filter(([id]) => !gone.has(id))));
  };
  return {
    runs,
    has: ({ id }) => runs.has(id),
    toggle,
    all: () => select(new Map(rows.map((run) => [run.id, run]))),
    clear: () => select(new Map()),
    drop,
  };
}
