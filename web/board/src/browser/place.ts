// Where the viewer is: a page that is new begins at its heading; one that they come back to is as they left it.
import { useEffect, useLayoutEffect, useRef } from "react";

interface Left {
  scroll: number;
  /** The address of the link, or of the row, that had the focus; null if none had it. */
  link: string | null;
}

/** Milliseconds in which a page gets its height back: its lists are asked for anew. */
const PATIENCE = 3_000;
const KEPT = 50;

const left = new Map<string, Left>();
const TOP: Left = { scroll: 0, link: null };
let next = Date.now();

/** A mark of the present entry of the history; an entry that is new has none yet. */
function entry(): string {
  const known: unknown = history.state?.place;
  if (typeof known === "string") return known;
  const key = String(next++);
  history.replaceState({ place: key }, "");
  return key;
}

/** `place` is the path of the page. After a change of it, but not at the first one, the focus moves into the page. */
export function usePlace(place: string, title: string): void {
  const shown = useRef<{ place: string; key: string }>(undefined);
  const here = useRef(TOP);
  const end = useRef(() => {});
  useEffect(() => {
    document.title = `${title}: Merlin board`;
  }, [place, title]);
  useEffect(() => {
    const scrolled = () => void (here.current = { ...here.current, scroll: window.scrollY });
    const focused = () => void (here.current = { ...here.current, link: linkOf(document.activeElement) });
    window.addEventListener("scroll", scrolled, { passive: true });
    window.addEventListener("focusin", focused);
    return () => {
      window.removeEventListener("scroll", scrolled);
      window.removeEventListener("focusin", focused);
    };
  }, []);
  useLayoutEffect(() => {
    const before = shown.current;
    if (before?.place === place && before.key === history.state?.place) return;
    const key = entry();
    shown.current = { place, key };
    if (!before || before.place === place) return;
    left.delete(before.key);
    left.set(before.key, here.current);
    if (left.size > KEPT) left.delete(left.keys().next().value!);
    here.current = TOP;
    end.current();
    window.scrollTo(0, 0);
    document.querySelector<HTMLElement>("main h1")?.focus({ preventScroll: true });
    const then = left.get(key);
    if (then) end.current = restored(then);
  });
}

function linkOf(element: Element | null): string | null {
  const link = element?.closest("main a") ?? (element?.matches("main [role=row]") ? element.querySelector("a") : null);
  return link?.getAttribute("href") ?? null;
}

/** Scrolls as soon as the page is high enough, and gives the focus back, unless the viewer does something before. */
function restored({ scroll, link }: Left): () => void {
  const heading = document.activeElement;
  const until = Date.now() + PATIENCE;
  let isThere = false;
  const look = () => {
    const isLate = Date.now() > until;
    if (!isThere && (isLate || document.documentElement.scrollHeight - window.innerHeight >= scroll)) {
      window.scrollTo(0, scroll);
      isThere = true;
    }
    const found = link && document.querySelector(`main a[href="${CSS.escape(link)}"]`);
    if (!isThere || (link && !found && !isLate)) return;
    const target = found && (found.closest<HTMLElement>("[role=row]") ?? (found as HTMLElement));
    if (target && document.activeElement === heading) target.focus({ preventScroll: true });
    end();
  };
  const timer = setInterval(look, 20);
  const acts = ["wheel", "keydown", "pointerdown"] as const;
  const end = () => {
    clearInterval(timer);
    for (const each of acts) window.removeEventListener(each, end);
  };
  for (const each of acts) window.addEventListener(each, end, { passive: true });
  return end;
}
