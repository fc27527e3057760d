import { type ReactNode, useState } from "react";

/** A part of the page whose content is asked for when it is opened first. */
export function Opened({ title, children }: { title: string; children: () => ReactNode }) {
  const [isOpen, setOpen] = useState(false);
  return (
    <section aria-label={title}>
      <details onToggle={(event) => event.currentTarget.open && setOpen(true)}>
        <summary>
          <h2>{title}</h2>
        </summary>
        {isOpen && children()}
      </details>
    </section>
  );
}
