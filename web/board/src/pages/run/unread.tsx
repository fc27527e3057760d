import { Empty } from "../../parts/states.tsx";
import { useSession } from "../../api/session.tsx";

/** Says why what comes from the files of a run is not known. */
export function Unread({ what }: { what: string }) {
  const session = useSession();
  if (!session) return null;
  const reads = session.database.sources.includes("WORKSPACE_FILES");
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
