import type { CombinedError } from "@urql/core";
import { type CSSProperties, memo, useEffect, useLayoutEffect, useRef, useState } from "react";
import { useClient } from "urql";

import { useIsOpen } from "../../api/connection.ts";
import { BoardLogDocument, type LogStream } from "../../gql/graphql.ts";
import { Empty, Failure } from "../../parts/states.tsx";
import { type Block, type LogText, MOST, withPiece } from "./log_text.ts";

const LINE_HEIGHT = 1.4; // em, as in the style sheet
const NEAR = 24; // pixels from the end that count as the end
const SHOWN_EVERY = 100;
const AGAIN_AFTER = 5_000;

interface Props {
  run: string;
  task: string;
  stream: LogStream;
  /** Whether there is such a file, if it is known. */
  exists: boolean | undefined;
  /** The file is there after all. */
  appear: () => void;
}

/** A text file as it grows. The end stays in sight until the reader scrolls up. Give it a `key` of task and stream. */
export function Log({ run, task, stream, exists, appear }: Props) {
  const { text, error } = useLog(run, task, stream);
  const frame = useRef<HTMLPreElement>(null);
  const [follows, follow] = useState(true);
  const [wraps, wrap] = useState(true);
  const hasAppeared = text !== null && exists === false;
  useEffect(() => {
    if (hasAppeared) appear();
  }, [hasAppeared]);
  useLayoutEffect(() => {
    if (follows && frame.current) frame.current.scrollTop = frame.current.scrollHeight;
  }, [text, follows, wraps]);
  const scrolled = () => {
    const { scrollTop, clientHeight, scrollHeight } = frame.current!;
    follow(scrollTop + clientHeight >= scrollHeight - NEAR);
  };
  if (error) return <Failure error={error} />;
  if (!text) {
    return (
      <Empty>
        {exists === false
          ? "There is no such file yet. It is shown as soon as there is."
          : exists
            ? "The end of the file is being read."
            : "Waiting for the file."}
      </Empty>
    );
  }
  return (
    <>
      <div className="log-head">
        <label>
          <input type="checkbox" checked={wraps} onChange={(event) => wrap(event.target.checked)} /> Wrap lines
        </label>
        <span className="detail">
          {text.size.toLocaleString()} bytes
          {!text.isWhole && `; the last ${(MOST / 2 ** 20).toString()} MiB at most is shown`}
        </span>
        <button aria-pressed={follows} onClick={() => follow(!follows)}>
          Follow the end
        </button>
      </div>
      <pre
        ref={frame}
        className={`text log${wraps ? " wraps" : ""}`}
        onScroll={scrolled}
        tabIndex={0}
        role="region"
        aria-label="Text of the file"
      >
        {text.blocks.length === 0 && <span className="none">The file is empty.</span>}
        {text.blocks.map((block, index) => (
          <Lines key={block.id} block={block} isLast={index >= text.blocks.length - 2} />
        ))}
      </pre>
    </>
  );
}

/** Laid out by the browser only while it is in sight; the last ones always, else the end is not where it seems to be. */
const Lines = memo(function Lines({ block, isLast }: { block: Block; isLast: boolean }) {
  const style = { containIntrinsicBlockSize: `auto ${(block.lines * LINE_HEIGHT).toFixed(1)}em` } as CSSProperties;
  return (
    <div className={isLast ? "lines" : "lines far"} style={style}>
      {block.text}
    </div>
  );
}, isSame);

function isSame(one: { block: Block; isLast: boolean }, other: { block: Block; isLast: boolean }): boolean {
  return one.block.text === other.block.text && one.isLast === other.isLast;
}

/** Asks again while the server tells nothing: it may not have read the workspace yet. */
function useLog(run: string, task: string, stream: LogStream) {
  const client = useClient();
  const isOpen = useIsOpen();
  const [text, show] = useState<LogText | null>(null);
  const [error, fail] = useState<CombinedError>();
  const [tries, tryAgain] = useState(0);
  useEffect(() => {
    if (!isOpen) return; // after a loss the end comes anew, and not what follows what stands here
    let read: LogText | null = null;
    let timer: ReturnType<typeof setTimeout> | undefined;
    let again = setTimeout(() => tryAgain(tries + 1), AGAIN_AFTER);
    const { unsubscribe } = client.subscription(BoardLogDocument, { run, task, stream }).subscribe((answer) => {
      fail(answer.error);
      clearTimeout(again);
      if (!answer.hasNext) {
        again = setTimeout(() => tryAgain(tries + 1), AGAIN_AFTER);
        return; // it has ended, and repeats its last piece
      }
      const piece = answer.data?.log;
      if (!piece) return;
      read = withPiece(read, piece);
      timer ??= setTimeout(() => {
        timer = undefined;
        show(read);
      }, SHOWN_EVERY);
    });
    return () => {
      clearTimeout(timer);
      clearTimeout(again);
      unsubscribe();
    };
  }, [client, isOpen, run, task, stream, tries]);
  return { text, error };
}
