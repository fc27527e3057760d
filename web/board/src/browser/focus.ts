import type { MouseEvent } from "react";

/** For a button that goes when it is pressed: who has it on the keyboard is taken to the heading of its section. */
export function focusHeading({ currentTarget }: MouseEvent<HTMLElement>): void {
  currentTarget.closest("section")?.querySelector<HTMLElement>("h2")?.focus({ preventScroll: true });
}
