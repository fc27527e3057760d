// What is not up to date, and since when: the connection to the server, and the server's to the database.
import type { Status } from "./connection.ts";
import { useNow } from "./clock.ts";
import { Time } from "./parts/time.tsx";
import { ago } from "./times.ts";

export function Notices({ status, staleSince }: { status: Status; staleSince: string | null | undefined }) {
  return (
    <div className="notices" role="status">
      {status.state === "lost" && (
        <p className="notice">
          <strong>
            The connection to the server is lost{status.since && <Since at={status.since.toISOString()} />}.
          </strong>{" "}
          What stands here is from then. The board connects again by itself.
        </p>
      )}
      {status.state === "failed" && (
        <p className="notice">
          <strong>The server does not understand this page.</strong> Load it anew: the server may have another version.
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
    </div>
  );
}

function Since({ at }: { at: string }) {
  const now = useNow();
  return (
    <>
      {" "}
      since <Time at={at} /> ({ago(at, now)})
    </>
  );
}
