import { useEffect } from "react";

import { Empty } from "../../parts/states.tsx";
import { useSession } from "../../api/session.tsx";

const AGAIN_AFTER = 5_000; // milliseconds

/** Says why what comes from the files of a run is not known. `retry` asks for it again: it may be read by then. */
export function Unread({ what, retry }: { what: string; retry?: () => void }) {
  const session = useSession();
  const reads = session?.database.sources.includes("WORKSPACE_FILES");
  useEffect(() => {
    if (!reads || !retry) return;
    const timer = setInterval(retry, AGAIN_AFTER);
    return () => clearInterval(timer);
  }, [reads, retry]);
  if (!session) return null;
  return (
    <Empty>
      {what} are not known:{" "}
      {reads ? (
        <>
          the server has not read this workspace. If it is a large one, that may take some seconds. If nothing comes, it
          is gone, it is not below a <code>--workspace-root</code>, or the server may not open it; its log has the
          reason.
        </>
      ) : (
        <>
          this server reads no workspaces. Whoever runs it can name the directory of the studies:{" "}
          <code>merlin-graphql serve --workspace-root DIRECTORY</code>.
        </>
      )}
    </Empty>
  );
}
