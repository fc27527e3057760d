// A run: its steps, its tasks and their output, its history, and what can be done about it.
import { useEffect } from "react";

import { change, href, useAddress } from "../../browser/address.ts";
import { BoardRunDocument, BoardRunStepsDocument } from "../../gql/graphql.ts";
import { useLive } from "../../api/live.ts";
import { type Named, folderOf } from "../../parts/run_name.tsx";
import { Section } from "../../parts/section.tsx";
import { Failure, Loading } from "../../parts/states.tsx";
import { Annotations } from "./annotations.tsx";
import { Commands } from "./commands.tsx";
import { Header } from "./header.tsx";
import { History } from "./history.tsx";
import { Input } from "./input.tsx";
import { Opened } from "./opened.tsx";
import { Spec } from "./spec.tsx";
import { Steps } from "./steps.tsx";
import { Tasks } from "./tasks.tsx";
import { Unread } from "./unread.tsx";
import { Workers } from "./workers.tsx";

import "./page.css";
import "./tasks.css";

export function RunPage() {
  const { path, params } = useAddress();
  const id = path[1]!;
  const { data, error } = useLive(BoardRunDocument, { id });
  const run = data?.run;
  const { data: stepsData, error: stepsError } = useLive(BoardRunStepsDocument, { id });
  const steps = stepsData?.run?.stepRuns;
  const title = run ? nameOf(run) : "Run";
  useEffect(() => {
    document.title = `${title}: Merlin board`;
  }, [title]);
  const step = params.get("step");
  return (
    <>
      <h1 tabIndex={-1}>{title}</h1>
      {error && <Failure error={error} />}
      {!data && !error && <Loading rows={12} />}
      {data && !run && <Gone id={id} />}
      {run && (
        <>
          <Header run={run} />
          {steps?.length === 0 ? (
            <Section title="Steps and tasks">
              <Unread what="They" />
            </Section>
          ) : (
            <>
              <Steps steps={steps} error={stepsError} chosen={step} choose={(chosen) => change({ step: chosen })} />
              <Tasks run={run} steps={steps} />
            </>
          )}
          <div className="columns">
            <div className="column">
              <History run={run} />
              {run.workspace && <Commands workspace={run.workspace} />}
            </div>
            <div className="column">
              <Annotations run={run} />
              <Workers run={id} />
            </div>
          </div>
          <Opened title="Parameters and samples">{() => <Input run={id} />}</Opened>
          <Opened title="Specification">{() => <Spec run={id} />}</Opened>
        </>
      )}
    </>
  );
}

function Gone({ id }: { id: string }) {
  return (
    <section aria-label="No such run" role="status">
      <h2>There is no such run</h2>
      <p>
        Merlin's database has no run with the id <code>{id}</code>: it was deleted, or the address is wrong.
      </p>
      <a href={href(["runs"])}>To all runs</a>
    </section>
  );
}

function nameOf({ id, workspace, study }: Named): string {
  const { folder, stamp } = folderOf(workspace);
  return study && stamp ? `${study.name} ${stamp}` : folder || workspace || id;
}
