// A list of any length with rows of any height, of which the page holds only those in sight; it scrolls with the page.
import { defaultRangeExtractor, useWindowVirtualizer } from "@tanstack/react-virtual";
import { type ReactNode, useEffect, useLayoutEffect, useRef, useState } from "react";

import { useNarrow } from "../browser/media.ts";

interface Props<T> {
  label: string;
  rows: readonly T[];
  idOf: (row: T) => string;
  /** Of a row, in pixels and about, in one line and on narrow screens; each is measured once it is in sight. */
  heights: { wide: number; narrow: number };
  children: (row: T) => ReactNode;
  /** How many rows there are, those that are not loaded included. */
  total?: number;
  /** The end of the rows comes near. */
  onEnd?: () => void;
  /** The rows in sight, when scrolling has come to rest. */
  onRest?: (rows: readonly T[]) => void;
}

const NEAR = 60; // rows

export function LongList<T>({ label, rows, idOf, heights, children, total, onEnd, onRest }: Props<T>) {
  const list = useRef<HTMLUListElement>(null);
  const [scrollMargin, setMargin] = useState(0);
  useLayoutEffect(() => setMargin((list.current?.getBoundingClientRect().top ?? 0) + window.scrollY));
  const isNarrow = useNarrow();
  const [focused, setFocused] = useState(-1);
  const virtual = useWindowVirtualizer({
    count: rows.length,
    estimateSize: () => (isNarrow ? heights.narrow : heights.wide),
    getItemKey: (index) => idOf(rows[index]!),
    overscan: 8,
    scrollMargin,
    useFlushSync: false,
    rangeExtractor: (range) => {
      const found = defaultRangeExtractor(range);
      if (focused < 0 || focused >= rows.length || found.includes(focused)) return found;
      return [...found, focused].sort((a, b) => a - b); // what has the focus stays in the page
    },
  });
  const { startIndex = 0, endIndex = 0 } = virtual.range ?? {};
  useEffect(() => {
    if (endIndex >= rows.length - NEAR) onEnd?.();
  }, [endIndex, rows.length]);
  useEffect(() => {
    if (!virtual.isScrolling) onRest?.(rows.slice(startIndex, endIndex + 1));
  }, [virtual.isScrolling, startIndex, endIndex, rows]);
  return (
    <ul className="long-list" ref={list} aria-label={label} style={{ height: virtual.getTotalSize() }}>
      {virtual.getVirtualItems().map(({ key, index, start }) => (
        <li
          key={String(key)}
          ref={virtual.measureElement}
          data-index={index}
          onFocus={() => setFocused(index)}
          onBlur={() => setFocused(-1)}
          aria-setsize={total ?? rows.length}
          aria-posinset={index + 1}
          style={{ transform: `translateY(${start - scrollMargin}px)` }}
        >
          {children(rows[index]!)}
        </li>
      ))}
    </ul>
  );
}
