// What is not up to date, and since when: the connection to the server, and the server's to the database.
import type { Status } from "../api/connection.ts";
import { useNow } from "../browser/clock.ts";
import { Time } from "../parts/time.tsx";
import { ago } from "../values/times.ts";

interface Props {
  status: Status;
  staleSince: string | null | undefined;
  /** What was asked for and not done. */
  refusal: string;
  onClose: () => void;
}

export function Notices({ status, staleSince, refusal, onClose }: Props) {
  return (
    <div className="notices" role="status">
      {status.state === "lost" && status.since && (
        <p className="notice">
          <strong>
            The connection to the server is lost
            <Since at={status.since.toISOString()} />.
          </strong>{" "}
          What stands here is from then. The board connects again by itself.
        </p>
      )}
      {status.state === "lost" && !status.since && (
        <p className="notice">
          <strong>The server can't be reached.</strong> The board connects by itself as soon as it can. If this stays
          so, look whether a proxy on the way passes websockets.
        </p>
      )}
      {status.state === "failed" && (
        <p className="notice">
          <strong>
            The server has another version than this page
            {status.since && <Since at={status.since.toISOString()} />}.
          </strong>{" "}
          Nothing here is kept up to date any more.{" "}
          <button onClick={() => location.reload()}>Load the page anew</button>
        </p>
      )}
      {status.state === "open" && staleSince && (
        <p className="notice">
          <strong>
            The server does not reach Merlin's database
            <Since at={staleSince} />.
          </strong>{" "}
          What stands here is from then. Nothing can be changed until it is back.
        </p>
      )}
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

/** How long ago that is changes all the time: a reader of screens is not told each time. */
function Since({ at }: { at: string }) {
  const now = useNow();
  return (
    <>
      {" "}
      since <Time at={at} /> <span aria-hidden="true">({ago(at, now)})</span>
    </>
  );
}
