import { Entity } from "./entity.tsx";
import { KIND_WORDS, type Problem } from "./problems.ts";
import { Status } from "../../parts/status.tsx";

/** A problem: how grave it is, what is wrong, with what, and whether it can be repaired. */
export function ProblemLine({ problem, left }: { problem: Problem; left: boolean }) {
  const { severity, kind, message, entityKind, entityId, field, repairable } = problem;
  return (
    <div className={`problem-line${left ? " left" : ""}`}>
      <Status status={severity} />
      <div>
        <span className="strong">{KIND_WORDS[kind]}</span>{" "}
        <span className="muted">{left ? "· gone since" : repairable ? "· repairable" : "· not repairable"}</span>
        <p>{message}</p>
        <Entity kind={entityKind} id={entityId} />
        {field && <span className="muted"> · field {field}</span>}
      </div>
    </div>
  );
}
