import { href } from "../browser/address.ts";
import { Name } from "./name.tsx";

export interface Named {
  id: string;
  workspace: string;
  study?: { name: string } | null;
}

/** The name of a workspace's folder, and the time that Merlin ends it with. */
export function folderOf(workspace: string): { folder: string; stamp: string | undefined } {
  const folder = workspace.replace(/\/+$/, "").split("/").at(-1)!;
  return { folder, stamp: /_(\d{8}-\d{6})$/.exec(folder)?.[1] };
}

/** A run as its study and the time in the name of its workspace, which is on hover. */
export function RunName({ run, tabIndex }: { run: Named; tabIndex?: 0 | -1 }) {
  const { folder, stamp } = folderOf(run.workspace);
  return (
    <a className="run-name" href={href(["runs", run.id])} title={run.workspace} tabIndex={tabIndex}>
      <Name>{run.study?.name ?? (folder || run.id)}</Name>{" "}
      {run.study && stamp && <span className="stamp">{stamp}</span>}
    </a>
  );
}
