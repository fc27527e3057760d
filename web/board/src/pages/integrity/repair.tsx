// The repair: first what it would do, then the same for good.
import type { CombinedError } from "@urql/core";
import { useState } from "react";
import { useMutation } from "urql";

import {
  BoardRepairDocument,
  type BoardRepairMutation,
  type ProblemKind,
  type ResurrectedRuns,
} from "../../gql/graphql.ts";
import { Dialog } from "../../parts/dialog.tsx";
import { Failure } from "../../parts/states.tsx";
import { type Count, KIND_WORDS, kindsOf } from "./problems.ts";
import { Details, Summary } from "./outcome.tsx";

export type Result = BoardRepairMutation["repair"];

interface Done {
  kinds: readonly ProblemKind[];
  dryRun: boolean;
  result: Result;
}

export function Repair({ counts, close }: { counts: readonly Count[]; close: () => void }) {
  const kinds = kindsOf(counts).filter(({ repairable }) => repairable > 0);
  const [left, leave] = useState<ReadonlySet<ProblemKind>>(new Set());
  const [resurrected, setResurrected] = useState<ResurrectedRuns>("DELETE");
  const [done, setDone] = useState<Done>();
  const [error, setError] = useState<CombinedError>();
  const [wasDry, setDry] = useState(true);
  const [{ fetching }, repair] = useMutation(BoardRepairDocument);
  const chosen = kinds.map(({ kind }) => kind).filter((kind) => !left.has(kind));
  const isTried = done?.dryRun === true && done.result.userErrors.length === 0;

  const run = async (kinds: readonly ProblemKind[], dryRun: boolean) => {
    setError(undefined);
    setDry(dryRun);
    const { data, error: failed } = await repair({ input: { kinds: [...kinds], resurrected, dryRun } });
    setError(failed);
    setDone(data ? { kinds, dryRun, result: data.repair } : undefined);
  };
  const choose = (kind: ProblemKind, isChosen: boolean) => {
    const next = new Set(left);
    if (isChosen) next.delete(kind);
    else next.add(kind);
    leave(next);
    setDone(undefined); // what was tried was another repair
  };
  const isOver = done !== undefined && !done.dryRun && done.result.userErrors.length === 0;
  return (
    <Dialog className="repair" title="Repair" onClose={close}>
      {(leaveDialog) => (
        <>
          {!isOver && (
            <fieldset disabled={fetching}>
              {kinds.length > 0 && <legend>What can be repaired without losing data</legend>}
              {kinds.length === 0 && (
                <p className="empty">There is nothing that could be repaired without losing data.</p>
              )}
              {kinds.map(({ kind, repairable }) => (
                <label key={kind}>
                  <input
                    type="checkbox"
                    checked={!left.has(kind)}
                    onChange={(event) => choose(kind, event.target.checked)}
                  />
                  <span>
                    {KIND_WORDS[kind]} <span className="muted">({repairable.toLocaleString()})</span>
                  </span>
                </label>
              ))}
              {chosen.includes("RESURRECTED") && (
                <label className="resurrected">
                  <span>Deleted runs that exist again</span>
                  <select
                    value={resurrected}
                    onChange={(event) => {
                      setResurrected(event.target.value as ResurrectedRuns);
                      setDone(undefined);
                    }}
                  >
                    <option value="DELETE">are deleted again, unless Merlin works on them</option>
                    <option value="KEEP">stay, as runs like any other</option>
                  </select>
                </label>
              )}
            </fieldset>
          )}
          <div role="status">
            {fetching && <p>The server is at work…</p>}
            {done && !fetching && <Summary dryRun={done.dryRun} result={done.result} />}
          </div>
          {done && !fetching && <Details dryRun={done.dryRun} result={done.result} />}
          {error && <Failure error={error} isChange={!wasDry} />}
          <div className="actions">
            <button onClick={() => leaveDialog()}>{isOver ? "Close" : "Cancel"}</button>
            {!isOver && (
              <button onClick={() => void run(chosen, true)} disabled={fetching || chosen.length === 0}>
                Try without changing anything
              </button>
            )}
            {isTried && done.result.repaired.length > 0 && (
              <button className="primary" onClick={() => void run(done.kinds, false)} disabled={fetching}>
                Repair {done.result.repaired.length.toLocaleString()} for good
              </button>
            )}
          </div>
        </>
      )}
    </Dialog>
  );
}
