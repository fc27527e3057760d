// A list of any length with rows of any height, of which the page holds only those in sight; it scrolls with the page.
import { defaultRangeExtractor, useWindowVirtualizer } from "@tanstack/react-virtual";
import { type ReactNode, useLayoutEffect, useRef, useState } from "react";

import { useNarrow } from "../browser/media.ts";

interface Props<T> {
  label: string;
  rows: readonly T[];
  idOf: (row: T) => string;
  /** Of a row, in pixels and about, in one line and on narrow screens; each is measured once it is in sight. */
  heights: { wide: number; narrow: number };
  children: (row: T) => ReactNode;
}

export function LongList<T>({ label, rows, idOf, heights, children }: Props<T>) {
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
  return (
    <ul className="long-list" ref={list} aria-label={label} style={{ height: virtual.getTotalSize() }}>
      {virtual.getVirtualItems().map(({ key, index, start }) => (
        <li
          key={String(key)}
          ref={virtual.measureElement}
          data-index={index}
          onFocus={() => setFocused(index)}
          onBlur={() => setFocused(-1)}
          aria-setsize={rows.length}
          aria-posinset={index + 1}
          style={{ transform: `translateY(${start - scrollMargin}px)` }}
        >
          {children(rows[index]!)}
        </li>
      ))}
    </ul>
  );
}
