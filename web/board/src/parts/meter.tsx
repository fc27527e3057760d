import { tone } from "../values/statuses.ts";

interface Counted {
  total?: number | null;
  done: number;
  failed: number;
}

/** Done, failed and open tasks as a bar, with the numbers beside it. */
export function Meter({ progress, label }: { progress: Counted | null | undefined; label: string }) {
  if (!progress) return <span className="none">no progress known</span>;
  const { done, failed, total } = progress;
  const share = total ? Math.floor((100 * done) / total) : null;
  const numbers = total == null ? `${done} done` : `${done} of ${total}`;
  return (
    <span className="meter">
      {total != null && (
        <svg
          viewBox="0 0 100 8"
          preserveAspectRatio="none"
          role="progressbar"
          aria-label={label}
          aria-valuemin={0}
          aria-valuemax={total}
          aria-valuenow={done}
          aria-valuetext={`${numbers} tasks, ${failed} failed`}
        >
          <rect className="track" width="100" height="8" />
          <rect className={tone("SUCCEEDED")} width={total ? (100 * (done - failed)) / total : 100} height="8" />
          {failed > 0 && (
            <rect
              className={tone("FAILED")}
              x={(100 * (done - failed)) / total}
              width={Math.max((100 * failed) / total, 2)}
              height="8"
            />
          )}
        </svg>
      )}
      <span className="numbers">
        {share != null && `${share} % · `}
        {numbers}
        {failed > 0 && <span className={`strong ${tone("FAILED")}`}> · {failed} failed</span>}
      </span>
    </span>
  );
}
