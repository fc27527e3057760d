// Deletes runs: first a dry run shows what goes, what changes with it, and what stays.
import { useEffect, useState } from "react";
import { useClient } from "urql";

import {
  type BoardDeleteRunsMutation,
  BoardDeleteRunsDocument,
  type EntityKind,
  type RunFilter,
} from "../../gql/graphql.ts";
import { RunName } from "../../parts/run_name.tsx";
import { Loading, isUnsure, told } from "../../parts/states.tsx";
import { Status } from "../../parts/status.tsx";
import { counted } from "./annotate.tsx";
import type { Run } from "./data.ts";
import { Dialog } from "../../parts/dialog.tsx";

export interface Doomed {
  filter: RunFilter;
  /** How many the filter has, as far as this page knows. */
  count: number;
  /** Those of them whose names are known. */
  runs: ReadonlyMap<string, Run>;
}

type Payload = BoardDeleteRunsMutation["deleteRuns"];
type Refusal = { message: string; code?: string | undefined };

interface Answer {
  payload: Payload | undefined;
  refusals: Refusal[];
  /** Whether it may have been done although no answer came. */
  isUnsure: boolean;
}

/** What happens to runs that Merlin still works on; `unknown`: it is not known yet whether there are any. */
type Active = "unknown" | "stay" | "go";

const AT_WORK: RunFilter = { status: { in: ["QUEUED", "RUNNING"] } };
const NAMED = 200;

/** As many as are deleted in one go: the answer names each of them. */
export const MOST_DELETED = 5_000;

interface Props {
  doomed: Doomed;
  onDeleted: (ids: readonly string[]) => void;
  onClose: () => void;
}

export function DeleteDialog({ doomed, onDeleted, onClose }: Props) {
  const client = useClient();
  const [active, setActive] = useState<Active>("unknown");
  const [plan, setPlan] = useState<Answer>();
  const [result, setResult] = useState<Answer>();
  const [isBusy, setBusy] = useState(false);
  const [tries, setTries] = useState(0);
  const [activeRefusal, setActiveRefusal] = useState<Refusal>();

  const ask = async (filter: RunFilter, dryRun: boolean): Promise<Answer> => {
    const variables = { filter, dryRun, force: active === "go" };
    const { data, error } = await client.mutation(BoardDeleteRunsDocument, variables).toPromise();
    return {
      payload: data?.deleteRuns,
      refusals: error ? told(error) : (data?.deleteRuns.userErrors ?? []),
      isUnsure: !dryRun && error !== undefined && isUnsure(error),
    };
  };
  useEffect(() => {
    let isLate = false;
    setPlan(undefined);
    const filter = active === "stay" ? { and: [doomed.filter, { not: AT_WORK }] } : doomed.filter;
    void ask(filter, true).then((answer) => {
      if (isLate) return;
      const refusal = answer.refusals.find(({ code }) => code === "STILL_ACTIVE");
      if (refusal && active === "unknown") {
        setActiveRefusal(refusal);
        setActive("stay");
      } else {
        setPlan(answer);
      }
    });
    return () => void (isLate = true);
  }, [active, tries]);

  const isFailed = plan !== undefined && !plan.payload;
  const going = plan?.payload?.deletedIds ?? [];
  const remove = async () => {
    setBusy(true);
    const answer = await ask({ id: { in: going } }, false); // what was shown, and nothing that came to match since
    setBusy(false);
    setResult(answer);
    if (answer.payload) onDeleted(answer.payload.deletedIds);
  };

  return (
    <Dialog title={`Delete ${counted(doomed.count)}`} onClose={onClose}>
      {(close) => (
        <>
          {result ? (
            <Outcome answer={result} />
          ) : (
            <>
              {activeRefusal && <ActiveChoice refusal={activeRefusal} active={active} choose={setActive} />}
              {plan ? <Plan plan={plan} doomed={doomed} /> : <Loading rows={4} />}
              {isFailed && <button onClick={() => setTries(tries + 1)}>Look again</button>}
            </>
          )}
          <div className="actions">
            {!result && !isFailed && (
              <button className="danger" disabled={isBusy || going.length === 0} onClick={() => void remove()}>
                {isBusy ? "Deleting…" : `Delete ${plan ? counted(going.length) : ""}`}
              </button>
            )}
            <button onClick={close}>{result ? "Close" : "Keep them"}</button>
          </div>
        </>
      )}
    </Dialog>
  );
}

interface ChoiceProps {
  refusal: Refusal;
  active: Active;
  choose: (active: Active) => void;
}

function ActiveChoice({ refusal, active, choose }: ChoiceProps) {
  return (
    <fieldset className="active-choice">
      <legend>Merlin still works on some of them</legend>
      <p>
        {refusal.message} <code>{refusal.code}</code>
      </p>
      <label>
        <input type="radio" name="active" checked={active === "stay"} onChange={() => choose("stay")} /> They stay.
      </label>
      <label>
        <input type="radio" name="active" checked={active === "go"} onChange={() => choose("go")} /> They go, too, by
        force. Merlin may bring such a run back.
      </label>
    </fieldset>
  );
}

function Plan({ plan: { payload, refusals }, doomed }: { plan: Answer; doomed: Doomed }) {
  if (refusals.length > 0 || !payload) return <Refusals refusals={refusals} />;
  const gone = new Set(payload.deletedIds);
  const named = payload.deletedIds.flatMap((id) => doomed.runs.get(id) ?? []);
  const staying = [...doomed.runs.values()].filter(({ id }) => !gone.has(id));
  const kept = Math.max(doomed.count - gone.size, staying.length);
  const changed = countsOf(payload.effects.filter(({ action }) => action === "UPDATED"));
  return (
    <>
      <h3>Goes: {counted(gone.size)}</h3>
      <Runs runs={named} others={gone.size - named.length} />
      {changed && (
        <p>
          Changes with it: {changed} will no longer name {gone.size === 1 ? "it" : "them"}.
        </p>
      )}
      <p className="muted">The files in the workspaces stay.</p>
      {kept > 0 && (
        <>
          <h3>Stays: {counted(kept)}</h3>
          <Runs runs={staying} others={kept - staying.length} />
        </>
      )}
      <Skipped payload={payload} />
    </>
  );
}

function Runs({ runs, others }: { runs: readonly Run[]; others: number }) {
  const more = others + Math.max(runs.length - NAMED, 0);
  return (
    <div className="run-list" role="region" aria-label="Runs" tabIndex={0}>
      <ul>
        {runs.slice(0, NAMED).map((run) => (
          <li key={run.id}>
            <RunName run={run} /> <Status status={run.status} />
          </li>
        ))}
        {more > 0 && <li>and {more.toLocaleString()} more</li>}
      </ul>
    </div>
  );
}

function Outcome({ answer: { payload, refusals, isUnsure: isNotKnown } }: { answer: Answer }) {
  return (
    <div role="status">
      {payload && refusals.length === 0 && <p>{counted(payload.deletedIds.length)} deleted.</p>}
      {payload && <Skipped payload={payload} />}
      <Refusals refusals={refusals} isUnsure={isNotKnown} />
    </div>
  );
}

function Skipped({ payload }: { payload: Payload }) {
  const skipped = countsOf(payload.skipped);
  return skipped ? <p>Skipped, since they no longer exist: {skipped}.</p> : null;
}

function Refusals({ refusals, isUnsure: isNotKnown = false }: { refusals: readonly Refusal[]; isUnsure?: boolean }) {
  if (refusals.length === 0) return null;
  return (
    <div className="failure" role="alert">
      <p>
        {isNotKnown
          ? "It is not known whether they were deleted. The list shows it as soon as the server is heard again."
          : "Nothing was deleted."}
      </p>
      {refusals.map(({ message, code }) => (
        <p key={message}>
          {message} {code && <code>{code}</code>}
        </p>
      ))}
    </div>
  );
}

const WORDS: Record<EntityKind, [string, string]> = {
  RUN: ["run", "runs"],
  STUDY: ["study", "studies"],
  LOGICAL_WORKER: ["logical worker", "logical workers"],
  PHYSICAL_WORKER: ["physical worker", "physical workers"],
};

/** `1 study and 2 logical workers`. */
function countsOf(effects: readonly { kind: EntityKind }[]): string {
  const counts = new Map<EntityKind, number>();
  for (const { kind } of effects) counts.set(kind, (counts.get(kind) ?? 0) + 1);
  return [...counts].map(([kind, count]) => `${count} ${WORDS[kind][count === 1 ? 0 : 1]}`).join(" and ");
}
