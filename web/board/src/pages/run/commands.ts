// The commands of Merlin for a run, for a shell on a machine where Merlin is configured.

export interface Command {
  name: string;
  text: string;
  note: string;
}

/** A word for sh, bash, zsh and csh. */
export function quoted(word: string): string {
  if (/^[\w@%+=:,./-]+$/.test(word) && !word.startsWith("-")) return word;
  // csh looks into quotes for the exclamation marks of its history
  return `'${word.replaceAll("'", `'\\''`).replaceAll("!", `'\\!'`)}'`;
}

export function commandsOf(workspace: string): Command[] {
  const folder = quoted(workspace.replace(/\/+$/, "") || "/");
  // Merlin writes exactly one such file; its name is that of the specification the run was launched with.
  const spec = `${folder}/merlin_info/*.expanded.yaml`;
  return [
    {
      name: "Restart",
      text: `merlin restart ${folder}`,
      note: "Goes on with this run: tasks that have finished are not executed again.",
    },
    {
      name: "Cancel",
      text: `merlin cancel ${spec}`,
      note: "Stops the workers of the study, purges its queues, and marks all its active runs as cancelled, not this one alone.",
    },
    {
      name: "Start workers",
      text: `merlin run-workers ${spec}`,
      note: "On the machine, or in the allocation, where they are to work.",
    },
    { name: "Status", text: `merlin status ${folder}`, note: "By step, at the terminal." },
    { name: "Status of each task", text: `merlin detailed-status ${folder}`, note: "By task, at the terminal." },
  ];
}
