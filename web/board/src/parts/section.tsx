import type { ReactNode } from "react";

interface Props {
  title: string;
  /** How many there are of what is shown in part. */
  total?: number | undefined;
  /** Where all of it is. */
  all?: string | undefined;
  /** Puts the rows in order again; none while they are. */
  sort?: (() => void) | undefined;
  children: ReactNode;
}

/** A part of the overview, with its heading, and a way to all that it shows the first of. */
export function Section({ title, total, all, sort, children }: Props) {
  return (
    <section aria-label={title}>
      <div className="section-head">
        <h2>
          {title} {total !== undefined && <span className="count">{total.toLocaleString()}</span>}
        </h2>
        {sort && (
          <button className="quiet" onClick={sort}>
            Sort anew
          </button>
        )}
        {all && (
          <a href={all} aria-label={`All: ${title}`}>
            All
          </a>
        )}
      </div>
      {children}
    </section>
  );
}
