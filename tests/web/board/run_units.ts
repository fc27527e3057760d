// The pure modules of the page of a run. Its argument names the group; what is wrong is thrown.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";

import { readValue, writtenValue } from "../../../web/board/src/pages/run/annotation_value.ts";
import { commandsOf, quoted } from "../../../web/board/src/pages/run/commands.ts";
import { BOX, type Depending, drawn, stepsBefore } from "../../../web/board/src/pages/run/graph.ts";
import { gridOf, parameterGrid, widthsOf } from "../../../web/board/src/pages/run/grid.ts";
import { type LogText, MOST, withPiece } from "../../../web/board/src/pages/run/log_text.ts";
import { type Known, MOST as MOST_ROWS, firstMissing, withRows } from "../../../web/board/src/pages/run/sample_rows.ts";
import type { Task } from "../../../web/board/src/pages/run/data.ts";
import { ORDERED, filterOf, wantedOf, writtenParameter } from "../../../web/board/src/pages/run/task_filter.ts";
import { failedIn, newsOf } from "../../../web/board/src/pages/run/task_news.ts";
import { namesOf, valuesOf } from "../../../web/board/src/pages/run/task_parameters.ts";

const textOf = ({ blocks }: LogText) => blocks.map(({ text }) => text).join("");

const GROUPS: Record<string, () => void> = {
  log() {
    // Whatever the pieces: the text is the end of the file, in blocks that are never told apart wrongly.
    let read: LogText | null = null;
    let file = "";
    for (let piece = 0; piece < 400; piece++) {
      const line = `${piece} `.repeat((piece * 37) % 900);
      const text = piece % 3 === 0 ? `${line}\n` : piece % 7 === 0 ? `${line}\n\n${line}` : line.repeat(4);
      file += text;
      read = withPiece(read, { text, size: file.length, start: file.length - text.length, end: file.length });
      const shown = textOf(read);
      assert.ok(file.endsWith(shown));
      assert.ok(shown.length <= MOST);
      assert.equal(read.isWhole, shown.length === file.length);
      assert.ok(shown.length === file.length || shown.length > MOST - 2 ** 15);
      const ids = read.blocks.map(({ id }) => id);
      assert.deepEqual(ids, [...new Set(ids)].sort((one, other) => one - other));
    }
    assert.ok(file.length > MOST);
    // A piece is cut at ends of lines, if it has any.
    const all = `${"x".repeat(99)}\n`.repeat(2_000);
    const lines = withPiece(null, { text: all, size: 200_500, start: 500, end: 200_500 });
    assert.ok(lines.blocks.length > 5 && lines.blocks.every(({ text }) => text.endsWith("\n")));
    assert.equal(lines.blocks.reduce((sum, block) => sum + block.lines, 0), 2_000);
    // A file that begins anew replaces what was there, whether it is shorter or longer, read whole or not, or empty.
    for (const [text, size] of [["new", 3], ["new", 300_000], ["", 0]] as const) {
      const anew = withPiece(lines, { text, size, start: 0, end: text.length });
      assert.deepEqual([textOf(anew), anew.isWhole, anew.size], [text, true, size]);
    }
    assert.equal(textOf(withPiece(lines, { text: "more", size: 300_000, start: 200_500, end: 200_504 })), `${all}more`);
    assert.equal(textOf(withPiece(null, { text: "", size: 0, start: 0, end: 0 })), "");
  },

  graph() {
    const steps: Depending[] = [
      { name: "prep", dependsOn: [] },
      { name: "sim", dependsOn: ["prep"] },
      { name: "check_*", dependsOn: ["sim"] },
      { name: "post", dependsOn: ["sim_*", "check_*", "prep", "nowhere", "nowhere_*"] },
    ];
    const names = new Set(steps.map(({ name }) => name));
    assert.deepEqual(stepsBefore(steps[3]!, names), [
      { name: "sim", waitsForAll: true },
      { name: "check_*", waitsForAll: false },
      { name: "prep", waitsForAll: false },
    ]);
    for (const direction of ["LR", "TB"] as const) {
      const { boxes, lines, width, height } = drawn(steps, direction);
      // The lines that others imply are not drawn.
      assert.deepEqual(lines.map(({ from, to }) => `${from} ${to}`).sort(), ["check_* post", "prep sim", "sim check_*"]);
      const along = boxes.map(({ x, y }) => (direction === "LR" ? x : y));
      assert.deepEqual(along, [...along].sort((one, other) => one - other));
      for (const { x, y } of boxes) assert.ok(x >= 0 && y >= 0 && x + BOX.width <= width && y + BOX.height <= height);
    }
    // What no valid specification has, ends.
    const circle = [
      { name: "a", dependsOn: ["b"] },
      { name: "b", dependsOn: ["a", "b"] },
    ];
    assert.equal(drawn(circle, "LR").boxes.length, 2);
    assert.deepEqual(drawn([], "LR").boxes, []);
  },

  commands() {
    const words = ["plain/path_1", "it's", "a b", "$HOME", "`id`", '"', "\\", "!!", "*", "~x", "-rf", "", "ä€😀", "a\nb", "#x", ";|&<>()[]{}"];
    const told = execFileSync("sh", ["-c", `printf '%s\\0' ${words.map(quoted).join(" ")}`]).toString();
    assert.deepEqual(told.split("\0").slice(0, -1), words);
    const texts = commandsOf("/runs/it's one/").map(({ text }) => text);
    assert.ok(texts.includes("merlin restart '/runs/it'\\''s one'"));
    assert.ok(texts.includes("merlin cancel '/runs/it'\\''s one'/merlin_info/*.expanded.yaml"));
  },

  annotations() {
    const values = ["ada", "5", "true", "null", " spaced ", "", '"quoted"', "{broken", 5, -1.5, true, [1, "a"], { a: null }];
    for (const value of values) assert.deepEqual(readValue(writtenValue(value)), { value });
    assert.deepEqual(readValue("two words"), { value: "two words" });
    for (const text of ["", "  ", "null", "{x", "[1,", '"open']) assert.ok("problem" in readValue(text), text);
  },

  rows() {
    // Wherever one looks, the rows there become known, some at a time, and never too many are kept.
    let known: Known = new Map();
    for (let look = 0; look < 300; look++) {
      const from = (look * 7_919) % 99_960;
      const to = from + 40;
      for (let next = firstMissing(known, from, to), asked = 0; next !== null; next = firstMissing(known, from, to)) {
        assert.ok(next >= from && next <= to && ++asked <= 6);
        const rows = Array.from({ length: Math.min(7 + (look % 90), 100_000 - next) }, (_, row) => [next! + row]);
        known = withRows(known, next, rows);
        assert.ok(known.size <= MOST_ROWS);
      }
      for (let row = from; row <= to; row++) assert.deepEqual(known.get(row), [row]);
    }
    assert.equal(known.size, MOST_ROWS);
    assert.equal(firstMissing(new Map(), 0, -1), null);
    assert.equal(firstMissing(new Map(), 3, 3), 3);
  },

  tables() {
    // Columns are as wide as their values and headings, within bounds; a fraction may be a long one in another row.
    const widths = widthsOf(["A", "B", "LONG_HEADING", "D", "E"], [[1, 0.5, "x", "y".repeat(99), 123456789012]]);
    assert.deepEqual(widths, [8, 22, 15, 40, 12]);
    assert.deepEqual(widthsOf(["A"], [[]]), [8]);
    assert.deepEqual(parameterGrid({ X: [1, 2], N: ["a"] }), { columns: ["X", "N"], rows: [["1", "a"], ["2", ""]] });
    assert.equal(parameterGrid({}), null);
    assert.equal(parameterGrid(null), null);
    assert.deepEqual(gridOf([[1, "x"], [2]]), { columns: ["Column 0", "Column 1"], rows: [["1", "x"], ["2"]] });
    assert.deepEqual(gridOf([{ a: 1 }, { b: null }]), { columns: ["a", "b"], rows: [["1", ""], ["", "null"]] });
    assert.deepEqual(gridOf([1.5, "x"]), { columns: ["Column 0"], rows: [["1.5"], ["x"]] });
    assert.equal(gridOf({}), null);
    assert.equal(gridOf([]), null);
    assert.equal(gridOf(Array.from({ length: 200_000 }, (_, row) => [row]))!.rows.length, 200_000);
  },

  filters() {
    const params = "step=sim&status=FAILED,NONE,RUNNING&parameter=X=0.5&text=fail&order=nothing";
    const wanted = wantedOf(new URLSearchParams(params));
    const parameter = { name: "X", value: "0.5" };
    assert.deepEqual(wanted, { step: "sim", statuses: ["RUNNING", "FAILED"], parameter, text: "fail", order: "failed" });
    const contains = { contains: "fail", ignoreCase: true };
    assert.deepEqual(filterOf(wanted), {
      and: [
        { step: { eq: "sim" } },
        { status: { in: ["RUNNING", "FAILED"] } },
        { parameter: { key: "X", eq: 0.5 } },
        { or: [{ path: contains }, { returnCode: contains }, { workers: { containsAny: ["fail"] } }] },
      ],
    });
    assert.deepEqual(filterOf(wantedOf(new URLSearchParams())), {});
    assert.deepEqual(ORDERED[wanted.order], { field: "SEVERITY", direction: "DESC" });
    // Whatever value a run has: what is offered for it finds it, and nothing else.
    const values = [0.5, 300, "300", "a=b", "=", "", " ", "null", null, true, "true", "[x", '"', "two words", 300];
    const offered = valuesOf({ X: values, Y: [1] }, "X");
    assert.equal(offered.length, values.length - 1);
    offered.forEach((value, at) => {
      const written = writtenParameter({ name: "X", value });
      const { parameter } = wantedOf(new URLSearchParams({ parameter: written }));
      assert.deepEqual(parameter, { name: "X", value });
      const [condition] = filterOf({ ...wanted, step: null, statuses: [], parameter }).and!;
      const only = values[at] === null ? { exists: true } : {};
      assert.deepEqual(condition, { parameter: { key: "X", eq: values[at], ...only } });
    });
    const any = wantedOf(new URLSearchParams("parameter=X"));
    assert.deepEqual(filterOf(any), { and: [{ parameter: { key: "X", exists: true } }] });
    assert.equal(wantedOf(new URLSearchParams("parameter==5")).parameter, null);
    for (const nothing of [null, undefined, {}, "x"]) assert.deepEqual([namesOf(nothing), valuesOf(nothing, "X")], [[], []]);
  },

  news() {
    const task = (status: string) => ({ status }) as Task;
    const [failed, waiting] = [task("FAILED"), task("WAITING")];
    // The failed ones come first: all are known once another one is, or the list ends.
    assert.equal(failedIn({ rows: [failed, failed, waiting], hasMore: true }), 2);
    assert.equal(failedIn({ rows: [failed, failed], hasMore: false }), 2);
    assert.equal(failedIn({ rows: [failed, failed], hasMore: true }), undefined);
    assert.equal(failedIn({ rows: [], hasMore: false }), 0);
    assert.equal(newsOf(9, 2, { matching: 9, failed: 2 }), null);
    assert.equal(newsOf(9, 2, { matching: 9, failed: 3 }), "1 more failed: show it");
    assert.equal(newsOf(2, 2, { matching: 1_202, failed: 1_202 }), "1,200 more failed: show them");
    assert.equal(newsOf(9, undefined, { matching: 10, failed: undefined }), "1 more matches: show it");
    assert.equal(newsOf(9, 2, { matching: 11, failed: 2 }), "2 more match: show them");
    for (const now of [{ matching: 8, failed: 2 }, { matching: 9, failed: 1 }]) assert.match(newsOf(9, 2, now)!, /^Other/);
    assert.equal(newsOf(undefined, 0, { matching: 9, failed: 2 }), null);
    assert.equal(newsOf(9, 2, { matching: undefined, failed: undefined }), null);
  },
};

GROUPS[process.argv[2]!]!();
