// Bundles the board into server/static/board: index.html, what it loads, named by content, and its operations.
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

import { licensesOf } from "../licenses.mjs";

const here = dirname(fileURLToPath(import.meta.url));
const out = join(dirname(dirname(here)), "server", "static", "board");

const text = (...path) => readFile(join(here, ...path), "utf8");

// A style sheet of a page holds for this page only: the frame gives <main> the class `page-NAME`.
const pageStyles = {
  name: "page styles",
  setup({ onLoad }) {
    onLoad({ filter: /src\/pages\/\w+\/\w+\.css$/ }, async ({ path }) => ({
      contents: `.page-${basename(dirname(path))} {\n${await readFile(path, "utf8")}\n}`,
      loader: "css",
    }));
  },
};

const { outputFiles, metafile, warnings } = await build({
  absWorkingDir: here,
  entryPoints: ["src/main.tsx"],
  outdir: out,
  bundle: true,
  minify: true,
  write: false,
  metafile: true,
  format: "iife",
  target: ["es2022", "chrome111", "firefox114", "safari16.4"],
  plugins: [pageStyles],
  jsx: "automatic",
  legalComments: "none", // licenses.txt has them whole
  entryNames: "[name]-[hash]",
  define: { "process.env.NODE_ENV": '"production"' },
});

if (warnings.length > 0) process.exit(1); // esbuild has told them

const named = (suffix) => basename(outputFiles.find(({ path }) => path.endsWith(suffix)).path);
const page = (await text("index.html")).replace("main.js", named(".js")).replace("main.css", named(".css"));
const licenses = await licensesOf(here, Object.keys(metafile.inputs));
const operations = await text("src/gql/persisted-documents.json");

// All is there before the old goes; index.html comes last, and says that the rest is complete.
await rm(out, { recursive: true, force: true });
await mkdir(out, { recursive: true });
await Promise.all(outputFiles.map(({ path, contents }) => writeFile(path, contents)));
await writeFile(join(out, "licenses.txt"), licenses);
await writeFile(join(out, "operations.json"), operations);
await writeFile(join(out, "index.html"), page);

const script = outputFiles.find(({ path }) => path.endsWith(".js")).contents;
const kB = (bytes) => `${Math.round(bytes / 1000)} kB`;
console.log(
  `server/static/board: the script has ${kB(script.length)}, ${kB(gzipSync(script, { level: 9 }).length)} gzipped`,
);
