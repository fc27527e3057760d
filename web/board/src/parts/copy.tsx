import { useEffect, useState } from "react";

const TOLD_FOR = 2_000;

/** Puts a text into the clipboard, and says so. `label`: what it copies, for readers of screens. */
export function Copy({ text, label }: { text: string; label: string }) {
  const [told, tell] = useState<"copied" | "failed" | null>(null);
  useEffect(() => {
    if (!told) return;
    const timer = setTimeout(() => tell(null), TOLD_FOR);
    return () => clearTimeout(timer);
  }, [told]);
  const copy = () => copied(text).then((done) => tell(done ? "copied" : "failed"));
  return (
    <button className="copy" aria-label={`Copy ${label}`} onClick={() => void copy()}>
      <span role="status">{told === "copied" ? "Copied" : told === "failed" ? "Not copied" : "Copy"}</span>
    </button>
  );
}

/** The clipboard is closed to pages of http from another machine: there a selection is copied as by hand. */
async function copied(text: string): Promise<boolean> {
  if (navigator.clipboard)
    return navigator.clipboard.writeText(text).then(
      () => true,
      () => byHand(text),
    );
  return byHand(text);
}

function byHand(text: string): boolean {
  const had = document.activeElement;
  const area = document.createElement("textarea");
  area.value = text;
  area.className = "hidden";
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  if (had instanceof HTMLElement) had.focus();
  return done;
}
