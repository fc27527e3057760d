// What is not up to date, and since when: the connection to the server, and the server's to the database.
import { type ReactNode, useLayoutEffect } from "react";

import type { Status } from "../api/connection.ts";
import { atServer, stopClock, useRunningNow } from "../browser/clock.ts";
import { Time } from "../parts/time.tsx";
import { ago } from "../values/times.ts";

interface Props {
  /** What is not up to date. */
  children: ReactNode;
  /** What was asked for and not done. */
  refusal: string;
  onClose: () => void;
}

export function Notices({ children, refusal, onClose }: Props) {
  return (
    <div className="notices" role="status">
      {children}
      <p className="refusal" role="alert">
        {refusal && (
          <>
            {refusal} <button onClick={onClose}>Close</button>
          </>
        )}
      </p>
    </div>
  );
}

/** While there is a loss, the clock of what is shown stands at it: nothing that lasted then is said to last still. */
export function Outdated({ status, staleSince }: { status: Status; staleSince: string | null | undefined }) {
  const { state, since, reason } = status;
  const stale = state === "open" ? staleSince : undefined;
  const at = since ? atServer(since.getTime()) : stale ? Date.parse(stale) : null;
  useLayoutEffect(() => stopClock(at), [at]);
  return (
    <>
      {state === "lost" && since && (
        <p className="notice">
          <strong>
            The connection to the server is lost
            <Since at={at} />.
          </strong>{" "}
          What stands here is from then. {reason && <>The server says: {reason} </>}The board connects again by itself.
        </p>
      )}
      {state === "lost" && !since && reason && (
        <p className="notice">
          <strong>The server does not take the connection of this page.</strong> It says: {reason} The board connects by
          itself as soon as it can.
        </p>
      )}
      {state === "lost" && !since && !reason && (
        <p className="notice">
          <strong>The server can't be reached.</strong> The board connects by itself as soon as it can. If this stays
          so, look whether a proxy on the way passes websockets.
        </p>
      )}
      {state === "failed" && (
        <p className="notice">
          <strong>
            The server has another version than this page
            {since && <Since at={at} />}.
          </strong>{" "}
          Nothing here is kept up to date any more.{" "}
          <button onClick={() => location.reload()}>Load the page anew</button>
        </p>
      )}
      {stale && (
        <p className="notice">
          <strong>
            The server does not reach Merlin's database
            <Since at={at} />.
          </strong>{" "}
          What stands here is from then. Nothing can be changed until it is back.
        </p>
      )}
    </>
  );
}

/** How long ago that is changes all the time: a reader of screens is not told each time. */
function Since({ at }: { at: number | null }) {
  const now = useRunningNow();
  if (at === null) return null;
  const time = new Date(at).toISOString();
  return (
    <>
      {" "}
      since <Time at={time} /> <span aria-hidden="true">({ago(time, now)})</span>
    </>
  );
}
