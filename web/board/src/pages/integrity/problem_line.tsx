import { Copy } from "../../parts/copy.tsx";
import { Status } from "../../parts/status.tsx";
import { Entity } from "./entity.tsx";
import { KIND_WORDS, type Problem } from "./problems.ts";

/** A problem: how grave it is, what is wrong, with what, and whether it can be repaired. */
export function ProblemLine({ problem, left }: { problem: Problem; left: boolean }) {
  const { severity, kind, message, entityKind, entityId, field, repairable } = problem;
  return (
    <div className={`problem-line${left ? " left" : ""}`}>
      <Status status={severity} />
      <div>
        <p className="line">
          <span className="strong">{KIND_WORDS[kind]}</span>
          <span className="muted">{left ? "gone since" : repairable ? "repairable" : "not repairable"}</span>
        </p>
        <p>{message}</p>
        <p className="line">
          <Entity kind={entityKind} id={entityId} />
          {entityKind !== "RUN" && entityId && <Copy text={entityId} label={`the id ${entityId}`} />}
          {field && <span className="detail">field {field}</span>}
        </p>
      </div>
    </div>
  );
}
