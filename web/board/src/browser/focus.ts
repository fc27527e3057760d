// The keyboard is never lost: what has the focus may go, or be disabled, when it is pressed.
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

/** Milliseconds in which who took the focus away may give it to another element. */
const WAIT = 100;

/** From now on, the focus of an element that goes moves to what stands next above it that can have it. */
export function keepFocus(): void {
  let around: HTMLElement[] = []; // what had the focus, and all that it stands in
  let timer: ReturnType<typeof setTimeout> | undefined;
  const look = () => {
    timer = undefined;
    const [lost] = around;
    if (!lost || document.activeElement !== document.body) return;
    if (isThere(lost))
      around = []; // somebody took it away, as by a click beside it
    else land(around);
  };
  document.addEventListener("focusin", ({ target }) => {
    around = [];
    for (let each = target as HTMLElement | null; each; each = each.parentElement) around.push(each);
  });
  document.addEventListener("focusout", ({ relatedTarget }) => {
    if (!relatedTarget && document.hasFocus()) timer ??= setTimeout(look, WAIT);
  });
  // Not every browser tells it of an element that goes.
  new MutationObserver(() => {
    if (around[0] && !isThere(around[0])) timer ??= setTimeout(look, WAIT);
  }).observe(document, { subtree: true, childList: true, attributeFilter: ["disabled"] });
}

function isThere(element: HTMLElement): boolean {
  return element.isConnected && !element.matches(":disabled");
}

function land(around: readonly HTMLElement[]): void {
  for (const each of around) {
    const target = each.isConnected ? landingIn(each) : null;
    if (!target) continue;
    if (!target.matches("input") && !target.hasAttribute("tabindex")) target.tabIndex = -1;
    target.focus({ preventScroll: true });
    if (document.activeElement === target) return;
  }
}

/** Where the keyboard goes on in a part of the page, if it is one. */
function landingIn(part: HTMLElement): HTMLElement | null {
  if (part.matches(".list-head")) return part.querySelector<HTMLElement>(".count");
  if (part.matches("[role=grid]")) return part.querySelector<HTMLElement>('[role=row][tabindex="0"]');
  if (part.matches("form")) return part.querySelector<HTMLElement>("input:enabled");
  if (part.matches("section, dialog")) return part.querySelector<HTMLElement>("h2");
  if (part.matches("main")) return part.querySelector<HTMLElement>("h1");
  return part === document.body ? document.querySelector<HTMLElement>("dialog[open] h2, main h1") : null;
}
