import { href } from "../../browser/address.ts";
import type { EntityKind } from "../../gql/graphql.ts";

const WORDS: Record<EntityKind, string> = {
  STUDY: "Study",
  RUN: "Run",
  LOGICAL_WORKER: "Logical worker",
  PHYSICAL_WORKER: "Physical worker",
};

/** What a problem or an effect is about: a run as a link, anything else as its id. */
export function Entity({ kind, id }: { kind: EntityKind; id: string }) {
  if (id === "") return <span className="muted">The whole table: {WORDS[kind].toLowerCase()}s</span>;
  return (
    <span className="entity">
      {WORDS[kind]}{" "}
      {kind === "RUN" ? (
        <a className="mono" href={href(["runs", id])}>
          {id}
        </a>
      ) : (
        <code>{id}</code>
      )}
    </span>
  );
}
