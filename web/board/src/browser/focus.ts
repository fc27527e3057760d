import { type MouseEvent, useLayoutEffect, useRef, useState } from "react";

/** For a button that goes when it is pressed: who has it on the keyboard is taken to the heading of its section. */
export function focusHeading({ currentTarget }: MouseEvent<HTMLElement>): void {
  currentTarget.closest("section")?.querySelector<HTMLElement>("h2")?.focus({ preventScroll: true });
}

type Find = () => HTMLElement | null | undefined;

/**
 * For what is in the page only once the states that are set beside it are shown: gives the focus to it then, before
 * that is painted. Until it is found, each time that the component is shown.
 */
export function useFocusNext(): (find: Find) => void {
  const wanted = useRef<Find>(undefined);
  const [, show] = useState({});
  useLayoutEffect(() => {
    const found = wanted.current?.();
    if (!found) return;
    wanted.current = undefined;
    found.focus();
  });
  return (find) => {
    wanted.current = find;
    show({});
  };
}
