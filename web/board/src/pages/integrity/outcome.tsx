import type { EffectAction } from "../../gql/graphql.ts";
import { Entity } from "./entity.tsx";
import { KIND_WORDS } from "./problems.ts";
import type { Result } from "./repair.tsx";

const SHOWN = 200; // of each list; the counts are of all
const ACTIONS: Record<EffectAction, string> = { CREATED: "created", UPDATED: "changed", DELETED: "deleted" };

interface Props {
  dryRun: boolean;
  result: Result;
}

/** How much a repair did, or would do; or why it was refused. */
export function Summary({ dryRun, result: { repaired, effects, userErrors } }: Props) {
  if (userErrors.length > 0) {
    return (
      <div className="failure">
        {userErrors.map(({ message, code }) => (
          <p key={message}>
            {message} <code>{code}</code>
          </p>
        ))}
      </div>
    );
  }
  return (
    <p className="strong">
      {dryRun ? "Nothing is changed yet. This would repair " : "Repaired: "}
      {counted(repaired.length, "problem")}
      {dryRun ? ", and change " : "; changed: "}
      {counted(effects.length, "record")}.
    </p>
  );
}

/** Each problem, and each record that changed or would change. */
export function Details({ dryRun, result: { repaired, effects } }: Props) {
  if (repaired.length + effects.length === 0) return null;
  return (
    <div
      className="outcome"
      tabIndex={0}
      role="region"
      aria-label={dryRun ? "What would be repaired" : "What was repaired"}
    >
      <ul>
        {repaired.slice(0, SHOWN).map(({ kind, entityId, field, otherId, message }) => (
          <li key={[kind, entityId, field, otherId, message].join()}>
            <span className="strong">{KIND_WORDS[kind]}</span>: {message}
          </li>
        ))}
      </ul>
      <Rest count={repaired.length} />
      <h3>Records</h3>
      <ul>
        {effects.slice(0, SHOWN).map(({ action, kind, entityId, fields }) => (
          <li key={`${action} ${entityId}`}>
            <Entity kind={kind} id={entityId} /> {ACTIONS[action]}
            {fields.length > 0 && <span className="muted">: {fields.join(", ")}</span>}
          </li>
        ))}
      </ul>
      <Rest count={effects.length} />
    </div>
  );
}

function Rest({ count }: { count: number }) {
  return count > SHOWN ? <p className="muted">And {(count - SHOWN).toLocaleString()} more.</p> : null;
}

function counted(count: number, noun: string): string {
  return `${count.toLocaleString()} ${noun}${count === 1 ? "" : "s"}`;
}
