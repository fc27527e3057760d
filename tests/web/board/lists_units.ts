// The pure modules of the board's long lists. Its argument names the group; what is wrong is thrown.
import assert from "node:assert/strict";

import { held } from "../../../web/board/src/lists/held.ts";
import {
  changesIn,
  type Count,
  kindsOf,
  type Problem,
  totalOf,
  type Wanted,
} from "../../../web/board/src/pages/integrity/problems.ts";
import { observed } from "../../../web/board/src/pages/queues/history.ts";
import { queuesOf } from "../../../web/board/src/pages/queues/queues.ts";
import { linesOf } from "../../../web/board/src/pages/workers/groups.ts";
import { Gathered, type PhysicalRecord, type Records } from "../../../web/board/src/pages/workers/records.ts";
import { type Process, shortName, workersOf } from "../../../web/board/src/pages/workers/workers.ts";

const NOW = "2026-06-01T12:00:00Z";

function process_(name: string, isAlive: boolean, pid = "1"): Process {
  const numbers = { activeTasks: 0, processedTasks: 0, loadAverage: null };
  return { name, pid, host: name.split("%")[1] ?? null, isAlive, lastSeenAt: NOW, ...numbers };
}

function record(id: string, name: string, logicalWorkerId: string | null = null): PhysicalRecord {
  const stored = { recorded: "RUNNING" as const, host: null, pid: null, startedAt: null };
  return { __typename: "PhysicalWorker", id, name, logicalWorkerId, ...stored };
}

function records(physical: PhysicalRecord[], ...logical: string[]): Records {
  return {
    logical: new Map(logical.map((id) => [id, { __typename: "LogicalWorker", id, name: `name_${id}`, queues: [`q_${id}`] }])),
    physical: new Map(physical.map((each) => [each.id, each])),
  };
}

const GROUPS: Record<string, () => void> = {
  held() {
    const row = (id: string, version: number) => ({ id, version });
    const all = (...rows: { id: string; version: number }[]) => new Map(rows.map((each) => [each.id, each]));
    const slots = [..."abc"].map((id) => ({ id, row: row(id, 1), left: false }));
    const next = held(slots, all(row("c", 2), row("new", 2), row("a", 2)));
    assert.deepEqual(next, [
      { id: "a", row: row("a", 2), left: false },
      { id: "b", row: row("b", 1), left: true },
      { id: "c", row: row("c", 2), left: false },
    ]);
    // What comes back is shown as it is, in its old place.
    assert.deepEqual(held(next, all(row("b", 3)))[1], { id: "b", row: row("b", 3), left: false });
  },

  gathered() {
    const gathered = new Gathered();
    const tell = (kind: string, id = "", node: unknown = null) => gathered.take({ kind, entityId: id, node } as never);
    const names = () => [...(gathered.records()?.physical.keys() ?? ["nothing"])];
    assert.deepEqual(names(), ["nothing"]);
    tell("SNAPSHOT_BEGIN");
    tell("SNAPSHOT", "p1", record("p1", "celery@a"));
    assert.deepEqual(names(), ["nothing"]);
    tell("SNAPSHOT", "p2", record("p2", "celery@b"));
    tell("SNAPSHOT_END");
    assert.deepEqual(names(), ["p1", "p2"]);
    const before = gathered.records()!;
    tell("CREATED", "p3", record("p3", "celery@c"));
    tell("DELETED", "p1");
    assert.deepEqual(names(), ["p2", "p3"]);
    assert.deepEqual([...before.physical.keys()], ["p1", "p2"]); // a page keeps what it was given
    // After a loss of the connection what is known stands until all is known anew.
    tell("SNAPSHOT_BEGIN");
    tell("SNAPSHOT", "p3", record("p3", "celery@c"));
    assert.deepEqual(names(), ["p2", "p3"]);
    tell("SNAPSHOT_END");
    assert.deepEqual(names(), ["p3"]);
  },

  workers() {
    const known = records([record("p1", "celery@a.%n1", "l1"), record("p2", "celery@b.%n2", "gone"), record("p3", "celery@c.%n3")], "l1");
    const heard = [process_("celery@a.%n1", true, "2"), process_("celery@a.%n1", false), process_("celery@b.%n2", false)];
    const stranger = process_("celery@x.%n1", true);
    const workers = workersOf(known, [...heard, stranger], true);
    assert.deepEqual(
      workers.map(({ name, state, host, record: own, processes }) => [name, state, host, own?.id, processes.length]),
      [
        ["celery@a.%n1", "alive", "n1", "p1", 2],
        ["celery@b.%n2", "gone", "n2", "p2", 1],
        ["celery@c.%n3", "unheard", null, "p3", 0],
        ["celery@x.%n1", "alive", "n1", undefined, 1],
      ],
    );
    assert.deepEqual(new Set(workersOf(known, [], false).map(({ state }) => state)), new Set(["unknown"]));
    assert.deepEqual(workers.map(shortName), ["a", "b", "c.%n3", "x"]);
    // Two records of one name are two lines.
    const twins = workersOf(records([record("p1", "same"), record("p2", "same")]), [], true);
    assert.equal(new Set(twins.map(({ id }) => id)).size, 2);

    const titles = (view: Parameters<typeof linesOf>[2]) =>
      linesOf(workers, known, view).lines.map((line) => line.group?.title ?? shortName(line.worker!));
    const all = { by: "logical" as const, kind: undefined, text: "" };
    assert.deepEqual(titles(all), ["name_l1", "a", "Their logical worker is gone", "b", "c.%n3", "No record names these", "x"]);
    assert.deepEqual(titles({ ...all, by: "host" }), ["n1", "a", "x", "n2", "b", "Host not known", "c.%n3"]);
    assert.deepEqual(titles({ ...all, kind: "unrecorded" }), ["No record names these", "x"]);
    assert.deepEqual(titles({ ...all, text: " Q_L1" }), ["name_l1", "a"]);
    assert.deepEqual(titles({ ...all, text: "nothing like it" }), []);
  },

  queues() {
    const queue = (name: string, waiting: number | null, consumers: number | null) => {
      return { queue: name, waiting, consumers, runs: 1, logicalWorkers: 1 };
    };
    const given = [queue("q10", 0, 0), queue("q9", 0, 0), queue("unknown", null, null), queue("full", 9, 1), queue("left", 1, 0)];
    assert.deepEqual(
      queuesOf(given).map(({ id }) => id),
      ["left", "full", "q9", "q10", "unknown"],
    );
    // What is kept of their past has a bound, and ends with them.
    let points = new Map<string, readonly { at: number; waiting: number }[]>();
    for (let at = 5_000; at <= 3_600_000; at += 5_000) points = observed(points, queuesOf(given), at);
    assert.equal(points.get("full")!.length, 120);
    assert.ok(!points.has("unknown"));
    assert.deepEqual([...observed(points, queuesOf(given.slice(0, 1)), 3_605_000).keys()], ["q10"]);
  },

  problems() {
    const problem = (id: string, kind: string, severity = "ERROR") => ({ id, kind, severity }) as Problem;
    const count = (kind: string, count: number, severity = "ERROR", repairable = false) =>
      ({ kind, count, severity, repairable }) as Count;
    const all = { severity: null, kind: null };
    const rows = [problem("a", "DANGLING_REFERENCE"), problem("b", "DANGLING_REFERENCE"), problem("c", "EMPTY_STUDY", "INFO")];
    const then = [count("DANGLING_REFERENCE", 1), count("DANGLING_REFERENCE", 1, "ERROR", true), count("EMPTY_STUDY", 9, "INFO")];
    assert.deepEqual(kindsOf(then), [
      { kind: "DANGLING_REFERENCE", count: 2, repairable: 1 },
      { kind: "EMPTY_STUDY", count: 9, repairable: 0 },
    ]);
    assert.equal(totalOf(then, all), 11);
    assert.equal(totalOf(then, { severity: "INFO", kind: null }), 9);
    assert.equal(totalOf(then, { severity: "ERROR", kind: "EMPTY_STUDY" }), 0);
    const changes = (now: Count[], { gone = [] as string[], hasMore = true, wanted = all as Wanted } = {}) => {
      const { come, gone: left } = changesIn({ rows, counts: then, hasMore }, new Set(gone), now, wanted);
      return [come, left];
    };
    const [, , studies] = then as [Count, Count, Count];
    assert.deepEqual(changes(then), [0, 0]);
    // One that is gone out of sight, one in sight, and another one in its place.
    assert.deepEqual(changes([count("DANGLING_REFERENCE", 1), studies]), [0, 1]);
    assert.deepEqual(changes([count("DANGLING_REFERENCE", 1), studies], { gone: ["a"] }), [0, 1]);
    assert.deepEqual(changes(then, { gone: ["a"] }), [1, 1]);
    // Where another kind comes and goes that is loaded, and where the list ends for now.
    assert.deepEqual(changes([...then, count("RESURRECTED", 3, "WARNING")]), [3, 0]);
    assert.deepEqual(changes([...then, count("RESURRECTED", 3, "WARNING")], { wanted: { severity: "INFO", kind: null } }), [0, 0]);
    assert.deepEqual(changes([count("DANGLING_REFERENCE", 2), count("EMPTY_STUDY", 11, "INFO")]), [2, 0]);
    // What comes after it is not loaded; if all is, each is counted.
    assert.deepEqual(changes([...then, count("ORPHAN_WORKER", 5, "INFO")]), [0, 0]);
    assert.deepEqual(changes([count("DANGLING_REFERENCE", 2), count("EMPTY_STUDY", 1, "INFO")], { hasMore: false }), [0, 0]);
    assert.deepEqual(changes([...then, count("ORPHAN_WORKER", 5, "INFO")], { hasMore: false }), [13, 0]);
  },
};

GROUPS[process.argv[2]!]!();
