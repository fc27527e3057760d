// What the list does not show yet.

/**
 * How many of the runs that come first now are not known: those before a known one, and those after it where the whole
 * list is known. (Else they come after the end of what is loaded, as runs before them left.)
 */
export function newIn(head: readonly string[], known: ReadonlySet<string>, isWhole: boolean): number {
  const last = head.findLastIndex((id) => known.has(id));
  const looked = isWhole || last < 0 ? head : head.slice(0, last);
  return looked.filter((id) => !known.has(id)).length;
}
