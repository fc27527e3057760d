import { href } from "../../browser/address.ts";
import { useNow } from "../../browser/clock.ts";
import { Copy } from "../../parts/copy.tsx";
import { Expected, useEstimates } from "../../parts/expected.tsx";
import { Meter } from "../../parts/meter.tsx";
import { Name } from "../../parts/name.tsx";
import { RunName } from "../../parts/run_name.tsx";
import { Status } from "../../parts/status.tsx";
import { Ago, Time } from "../../parts/time.tsx";
import { useSession } from "../../api/session.tsx";
import { duration } from "../../values/times.ts";
import type { Run } from "./data.ts";

/** What the run is, how far it is, and whether it will go on. */
export function Header({ run }: { run: Run }) {
  const expected = useEstimates([run]).get(run.id);
  return (
    <section className="run-head" aria-label="Run">
      <div className="line">
        <Status status={run.status} />
        {run.hasFailed && run.status !== "FAILED" && <span className="strong tone-failed">✕ has failed</span>}
        <Progress run={run} />
        {!run.isFinished && <Expected estimate={expected} />}
      </div>
      {run.isStuck && (
        <p className="stuck">
          <strong className="tone-failed">Stuck:</strong> it will not go on by itself. Nothing waits in{" "}
          {run.queues.join(", ") || "its queues"}, and no worker is alive for it. Start workers, or restart it: the
          commands stand below.
        </p>
      )}
      <dl className="facts">
        <div>
          <dt>Study</dt>
          <dd>
            {run.study ? (
              <a href={href(["runs"], { study: run.study.name })}>
                <Name>{run.study.name}</Name>
              </a>
            ) : (
              <span className="none">none in the database</span>
            )}
          </dd>
        </div>
        <div>
          <dt>Launched</dt>
          <dd>
            <Time at={run.launchedAt} /> {run.launchedAt && <Ago at={run.launchedAt} />}
          </dd>
        </div>
        <div>
          <dt>Started</dt>
          <dd>{run.startedAt ? <Time at={run.startedAt} /> : <span className="none">not seen</span>}</dd>
        </div>
        <div>
          <dt>{run.isFinished ? "Finished" : "Running for"}</dt>
          <dd>{run.isFinished ? <Finished run={run} /> : <Elapsed since={run.startedAt} />}</dd>
        </div>
        {run.parent && (
          <div>
            <dt>Launched by</dt>
            <dd>
              <RunName run={run.parent} />
            </dd>
          </div>
        )}
        {run.child && (
          <div>
            <dt>Launched the run</dt>
            <dd>
              <RunName run={run.child} />
            </dd>
          </div>
        )}
        <div className="wide">
          <dt>Workspace</dt>
          <dd className="copied">
            {run.workspace ? (
              <>
                <code>{run.workspace}</code> <Copy text={run.workspace} label="the path of the workspace" />
              </>
            ) : (
              <span className="none">none is recorded</span>
            )}
          </dd>
        </div>
      </dl>
    </section>
  );
}

function Progress({ run }: { run: Run }) {
  const sources = useSession()?.database.sources;
  if (run.progress) return <Meter progress={run.progress} label="Progress of the run" />;
  const isSeen = sources?.some((source) => source !== "OWN_HISTORY" && source !== "BROKER_QUEUES");
  return (
    <span className="none">
      {isSeen
        ? "This server has seen nothing of its tasks."
        : "This server sees no tasks: no workspaces, no events, no results."}
    </span>
  );
}

function Finished({ run }: { run: Run }) {
  if (!run.finishedAt) return <span className="none">not seen</span>;
  return (
    <>
      <Time at={run.finishedAt} />{" "}
      {run.duration != null && <span className="muted">after {duration(run.duration)}</span>}
    </>
  );
}

function Elapsed({ since }: { since: string | null | undefined }) {
  const now = useNow();
  if (!since) return <span className="none">–</span>;
  return <>{duration((now - Date.parse(since)) / 1000)}</>;
}
