// Where each step of a run is drawn, and the lines between them.
import { Graph, layout } from "@dagrejs/dagre";

export interface Box {
  name: string;
  /** Its upper left corner. */
  x: number;
  y: number;
}

export interface Line {
  from: string;
  to: string;
  points: readonly { x: number; y: number }[];
}

export interface Drawing {
  width: number;
  height: number;
  boxes: readonly Box[];
  lines: readonly Line[];
}

export interface Depending {
  name: string;
  dependsOn: readonly string[];
}

export interface Before {
  name: string;
  /** Whether all its tasks have to end, and not only the one of the same parameters and sample. */
  waitsForAll: boolean;
}

export const BOX = { width: 208, height: 96 };
const MARGIN = 4;

/** The steps that a step waits for; `sim_*` stands for all tasks of the step `sim`. */
export function stepsBefore(step: Depending, names: ReadonlySet<string>): Before[] {
  return step.dependsOn.flatMap((given): Before[] => {
    if (names.has(given)) return [{ name: given, waitsForAll: false }];
    const name = given.replace(/_\*$/, "");
    return name !== given && names.has(name) ? [{ name, waitsForAll: true }] : [];
  });
}

/** `direction`: to the right where there is room, else down. Lines that others imply are left out. */
export function drawn(steps: readonly Depending[], direction: "LR" | "TB"): Drawing {
  const graph = new Graph();
  graph.setGraph({ rankdir: direction, nodesep: 20, ranksep: 44, marginx: MARGIN, marginy: MARGIN });
  graph.setDefaultEdgeLabel(() => ({}));
  for (const { name } of steps) graph.setNode(name, { ...BOX });
  for (const [name, before] of directlyBefore(steps)) for (const each of before) graph.setEdge(each, name);
  layout(graph);
  const { width = 0, height = 0 } = graph.graph();
  const boxes = steps.map(({ name }) => {
    const { x, y } = graph.node(name) as { x: number; y: number };
    return { name, x: x - BOX.width / 2, y: y - BOX.height / 2 };
  });
  const lines = graph.edges().map((edge) => {
    const { points = [] } = graph.edge(edge) as { points?: { x: number; y: number }[] };
    return { from: edge.v, to: edge.w, points };
  });
  return { width, height, boxes, lines };
}

/** By step, those that it waits for, without those that one of these waits for, too. */
function directlyBefore(steps: readonly Depending[]): Map<string, string[]> {
  const names = new Set(steps.map(({ name }) => name));
  const before = new Map(steps.map((step) => [step.name, stepsBefore(step, names).map(({ name }) => name)]));
  const found = new Map<string, Set<string>>();
  const allBefore = (name: string): Set<string> => {
    let all = found.get(name);
    if (!all) {
      found.set(name, (all = new Set())); // also ends a circle, which no valid specification has
      for (const each of before.get(name)!) for (const one of [each, ...allBefore(each)]) all.add(one);
    }
    return all;
  };
  return new Map(
    [...before].map(([name, all]) => [
      name,
      all.filter((each) => each !== name && !all.some((other) => other !== each && allBefore(other).has(each))),
    ]),
  );
}

/** A smooth line through the points. */
export function pathOf(points: Line["points"]): string {
  const [first, ...rest] = points;
  if (!first) return "";
  const last = rest.at(-1);
  if (!last) return "";
  let path = `M${first.x},${first.y}`;
  for (let at = 0; at < rest.length - 1; at += 1) {
    const here = rest[at]!;
    const next = rest[at + 1]!;
    const middle = at === rest.length - 2 ? next : { x: (here.x + next.x) / 2, y: (here.y + next.y) / 2 };
    path += `Q${here.x},${here.y} ${middle.x},${middle.y}`;
  }
  return rest.length === 1 ? `${path}L${last.x},${last.y}` : path;
}
