// A table of any length, of which the page holds only the rows in sight. All rows have the same height.
// One row is in the order of the Tab key; the arrow keys, Page Up and Down, Home and End choose which.
import { type Range, defaultRangeExtractor, useVirtualizer } from "@tanstack/react-virtual";
import { type KeyboardEvent, type ReactNode, useCallback, useEffect, useLayoutEffect, useRef, useState } from "react";

import { useMedium, useNarrow } from "../browser/media.ts";
import { recall, remember } from "../lists/memory.ts";

import "./virtual_table.css";

export interface Place {
  index: number;
  /** For all in the cell that can be focused. */
  tabIndex: 0 | -1;
}

export interface Column<T> {
  /** Also the class of its cells: `virtual_table.css` says what else the style sheet of a page has to say. */
  key: string;
  title: ReactNode;
  cell: (row: T, place: Place) => ReactNode;
}

interface Props<T> {
  /** The class of the table. */
  name: string;
  label: string;
  columns: readonly Column<T>[];
  rows: readonly T[];
  idOf: (row: T) => string;
  /** How many rows there are, those that are not loaded included, if that is known. */
  total: number | undefined;
  /** The height of a row, in rem: in one line, in two where there is no room for one, and on narrow screens. */
  heights: Heights;
  /** Its place is remembered under this key: see `usePages`. */
  memory: string;
  /** Another number shows the first row, which gets the focus. */
  restarts?: number;
  /** The end of the rows comes near. */
  onEnd: () => void;
  /** The rows in sight, when scrolling has come to rest. */
  onRest?: (rows: readonly T[]) => void;
  classOf?: (row: T) => string | undefined;
  /** For tables whose rows can be selected: the space bar calls `select`; with the shift key, for a range. */
  isSelected?: (row: T) => boolean;
  select?: (index: number, isRange: boolean) => void;
  /** What comes after the last row: that more is on its way, or why not. Its button may go when it was pressed. */
  foot?: ReactNode;
}

interface Heights {
  wide: number;
  medium?: number;
  narrow: number;
}

interface Remembered {
  offset: number;
  current: number;
}

const NEAR = 60; // rows
const OVERSCAN = 8;

export function VirtualTable<T>(props: Props<T>) {
  const { columns, rows, idOf, memory } = props;
  const scroller = useRef<HTMLDivElement>(null);
  const height = useHeight(props.heights);
  const [remembered] = useState(() => recall<Remembered>(`place ${memory}`));
  const [chosen, choose] = useState(remembered?.current ?? 0);
  const [mustFocus, setMustFocus] = useState(false);
  const current = Math.min(chosen, rows.length - 1);
  const rangeExtractor = useCallback(
    (range: Range) => {
      const found = defaultRangeExtractor(range);
      if (current < 0 || found.includes(current)) return found; // the row with the focus stays in the page
      return [...found, current].sort((a, b) => a - b);
    },
    [current],
  );
  const virtualizer = useVirtualizer({
    count: rows.length,
    getScrollElement: () => scroller.current,
    estimateSize: () => height,
    overscan: OVERSCAN,
    initialOffset: remembered?.offset ?? 0,
    rangeExtractor,
  });
  useLayoutEffect(() => virtualizer.measure(), [height]);
  const { startIndex = 0, endIndex = 0 } = virtualizer.range ?? {};

  useEffect(() => {
    if (endIndex >= rows.length - NEAR) props.onEnd();
  }, [endIndex, rows.length]);
  useEffect(() => remember(`place ${memory}`, { offset: virtualizer.scrollOffset ?? 0, current }));
  useEffect(() => {
    if (virtualizer.isScrolling) return;
    props.onRest?.(rows.slice(startIndex, endIndex + 1));
  }, [virtualizer.isScrolling, startIndex, endIndex, rows]);
  const { restarts = 0 } = props;
  const shown = useRef(restarts);
  // Before it is painted: what had the focus may be gone, and a key that is pressed meanwhile would find nothing.
  useLayoutEffect(() => {
    if (shown.current === restarts) return;
    shown.current = restarts;
    virtualizer.scrollToOffset(0);
    choose(0);
    setMustFocus(true);
  }, [restarts]);
  useLayoutEffect(() => {
    if (!mustFocus) return;
    setMustFocus(false);
    scroller.current?.querySelector<HTMLElement>(`[data-index="${current}"]`)?.focus({ preventScroll: true });
  }, [mustFocus, current]);

  const onKeyDown = (event: KeyboardEvent<HTMLElement>) => {
    const isRow = (event.target as HTMLElement).getAttribute("role") === "row";
    if (event.key === " " && isRow && props.select) {
      event.preventDefault();
      props.select(current, event.shiftKey);
      return;
    }
    if (event.key === "Enter" && isRow) {
      (event.target as HTMLElement).querySelector("a")?.click();
      return;
    }
    const page = Math.max(Math.floor((scroller.current?.clientHeight ?? 0) / height) - 1, 1);
    const steps: Record<string, number> = {
      ArrowDown: 1,
      ArrowUp: -1,
      PageDown: page,
      PageUp: -page,
      Home: -rows.length,
      End: rows.length,
    };
    const step = steps[event.key];
    if (step === undefined || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    const next = Math.min(Math.max(current + step, 0), rows.length - 1);
    choose(next);
    if (next === rows.length - 1)
      virtualizer.scrollToOffset(scroller.current!.scrollHeight); // what follows is seen, too
    else virtualizer.scrollToIndex(next, { align: "auto" });
    setMustFocus(true);
  };

  return (
    <div
      className={`virtual-table ${props.name}`}
      role="grid"
      aria-label={props.label}
      aria-rowcount={props.total === undefined ? -1 : props.total + 1}
      aria-colcount={columns.length}
      aria-multiselectable={props.select ? true : undefined}
    >
      <div role="rowgroup" className="head">
        <div role="row" aria-rowindex={1} className="row">
          {columns.map(({ key, title }) => (
            <div key={key} role="columnheader" className={key}>
              {title}
            </div>
          ))}
        </div>
      </div>
      <div role="rowgroup" className="scroller" ref={scroller} onKeyDown={onKeyDown}>
        <div role="none" className="all" style={{ height: virtualizer.getTotalSize() }}>
          {virtualizer.getVirtualItems().map(({ index, start }) => {
            const row = rows[index]!;
            const tabIndex = index === current ? 0 : -1;
            return (
              <div
                key={idOf(row)}
                role="row"
                className={`row ${props.classOf?.(row) ?? ""}`}
                data-index={index}
                aria-rowindex={index + 2}
                aria-selected={props.isSelected?.(row)}
                tabIndex={tabIndex}
                onFocus={() => choose(index)}
                style={{ height, transform: `translateY(${start}px)` }}
              >
                {columns.map((column) => (
                  <div key={column.key} role="gridcell" className={column.key}>
                    {column.cell(row, { index, tabIndex })}
                  </div>
                ))}
              </div>
            );
          })}
        </div>
        {props.foot && (
          <div role="row" className="foot" onClick={() => setMustFocus(true)}>
            <div role="gridcell">{props.foot}</div>
          </div>
        )}
      </div>
    </div>
  );
}

/** Of a row, in pixels: the viewer's font size counts. */
function useHeight({ wide, medium = wide, narrow }: Heights): number {
  const isNarrow = useNarrow();
  const isMedium = useMedium();
  const rem = parseFloat(getComputedStyle(document.documentElement).fontSize);
  return Math.round((isNarrow ? narrow : isMedium ? medium : wide) * rem);
}
