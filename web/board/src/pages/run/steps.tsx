import type { CombinedError } from "@urql/core";
import { useMemo } from "react";

import { Section } from "../../parts/section.tsx";
import { ShareBar } from "../../parts/share_bar.tsx";
import { Failure, Loading } from "../../parts/states.tsx";
import { MARKS, TASK_STATUSES, tone } from "../../values/statuses.ts";
import { duration } from "../../values/times.ts";
import { useWidth } from "../../browser/width.ts";
import type { Step } from "./data.ts";
import { BOX, type Drawing, drawn, pathOf, stepsBefore } from "./graph.ts";

const MOST = 60; // beyond that the layout takes long, and no eye follows the lines

const EMPTY: Drawing = { width: 0, height: BOX.height, boxes: [], lines: [] };

interface Props {
  /** Undefined until the server has said them. */
  steps: readonly Step[] | undefined;
  error: CombinedError | undefined;
  chosen: string | null;
  choose: (step: string | null) => void;
}

/** The steps as a graph. A step that is chosen is the one whose tasks are listed. */
export function Steps({ steps, error, chosen, choose }: Props) {
  return (
    <Section title="Steps" total={steps?.length}>
      {error && <Failure error={error} />}
      {!steps && !error && <Loading rows={4} />}
      {steps && <StepGraph steps={steps} chosen={chosen} choose={choose} />}
    </Section>
  );
}

function StepGraph({ steps, chosen, choose }: { steps: readonly Step[] } & Omit<Props, "steps" | "error">) {
  const [frame, width] = useWidth<HTMLDivElement>();
  const direction = width >= 3 * BOX.width ? "LR" : "TB";
  const shape = JSON.stringify(steps.map(({ name, dependsOn }) => ({ name, dependsOn })));
  // The numbers change each second, the shape never: it is laid out once.
  const drawing = useMemo(
    () => (width > 0 ? drawn(steps.slice(0, MOST), direction) : EMPTY),
    [shape, direction, width > 0],
  );
  const names = new Set(steps.map(({ name }) => name));
  const byName = new Map(steps.map((step) => [step.name, step]));
  const rest = steps.slice(MOST);
  const box = (step: Step) => (
    <StepBox
      step={step}
      before={beforeIt(step, names)}
      isChosen={chosen === step.name}
      choose={() => choose(chosen === step.name ? null : step.name)}
    />
  );
  return (
    <div className="scroll graph" ref={frame} tabIndex={0} role="region" aria-label="Steps as a graph">
      <div className="drawing" style={{ width: drawing.width, height: drawing.height }}>
        <svg width={drawing.width} height={drawing.height} aria-hidden="true">
          <defs>
            <marker id="arrow" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">
              <path className="arrow" d="M0,0L8,4L0,8z" />
            </marker>
          </defs>
          {drawing.lines.map(({ from, to, points }) => (
            <path key={`${from} ${to}`} className="edge" d={pathOf(points)} markerEnd="url(#arrow)" />
          ))}
        </svg>
        <ol>
          {drawing.boxes.map(({ name, x, y }) => (
            <li key={name} style={{ left: x, top: y, width: BOX.width, height: BOX.height }}>
              {box(byName.get(name)!)}
            </li>
          ))}
        </ol>
      </div>
      {rest.length > 0 && (
        <ol className="more-steps" start={MOST + 1}>
          {rest.map((step) => (
            <li key={step.name}>{box(step)}</li>
          ))}
        </ol>
      )}
    </div>
  );
}

interface BoxProps {
  step: Step;
  before: string;
  isChosen: boolean;
  choose: () => void;
}

function StepBox({ step, before, isChosen, choose }: BoxProps) {
  const { progress, runTime } = step;
  const by = new Map(progress.counts.map(({ status, count }) => [status, count]));
  const running = (by.get("RUNNING") ?? 0) + (by.get("RETRYING") ?? 0);
  return (
    <button className="step" aria-pressed={isChosen} onClick={choose} title={step.description ?? undefined}>
      <span className="step-name">{step.name}</span>
      <ShareBar
        shares={TASK_STATUSES.map((status) => ({ status, count: by.get(status) ?? 0 }))}
        label={`Tasks of ${step.name}`}
      />
      <span className="numbers">
        {progress.total == null ? `${progress.done} done` : `${progress.done} of ${progress.total}`}
        {running > 0 && (
          <span className={tone("RUNNING")}>
            {" "}
            <span aria-hidden="true">{MARKS.RUNNING}</span> {running}
            <span className="hidden"> running</span>
          </span>
        )}
        {progress.failed > 0 && (
          <span className={`strong ${tone("FAILED")}`}>
            {" "}
            <span aria-hidden="true">{MARKS.FAILED}</span> {progress.failed}
            <span className="hidden"> failed</span>
          </span>
        )}
      </span>
      <span className="detail">{runTime ? `${seconds(runTime.mean)} each` : "none has ended"}</span>
      <span className="hidden">{before}</span>
    </button>
  );
}

function beforeIt(step: Step, names: ReadonlySet<string>): string {
  const before = stepsBefore(step, names);
  if (before.length === 0) return "Waits for no step.";
  return `After ${before.map(({ name, waitsForAll }) => (waitsForAll ? `all of ${name}` : name)).join(", ")}.`;
}

function seconds(value: number): string {
  return value < 10 ? `${Number(value.toPrecision(2))} s` : duration(value);
}
