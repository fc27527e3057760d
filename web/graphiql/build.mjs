// Bundles the page into server/static/graphiql: index.html, and beside it what it loads, named by content.
import { createHash } from "node:crypto";
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

import { licensesOf } from "../licenses.mjs";

const here = dirname(fileURLToPath(import.meta.url));
const root = dirname(dirname(here));
const out = join(root, "server", "static", "graphiql");

const text = (...path) => readFile(join(...path), "utf8");

// The tabs that GraphiQL opens with: tabs.json chooses, queries/ holds the operations. `about` is for who sees the page
// for the first time.
const tabs = await Promise.all(
  JSON.parse(await text(here, "tabs.json")).map(async ({ operation, variables, about = [] }) => ({
    query: [...about.map((line) => `# ${line}\n`), await text(root, "queries", `${operation}.graphql`)].join(""),
    variables: variables && JSON.stringify(variables, null, 2),
  })),
);

// GraphiQL's style sheet holds its fonts as data: as files they come only when used, and the policy names no data:.
const fontFiles = {
  name: "font files",
  setup({ onResolve, onLoad }) {
    onResolve({ filter: /^data:font\/\w+;base64,/ }, ({ path }) => {
      const [type, encoded] = path.slice("data:font/".length).split(";base64,");
      const contents = Buffer.from(encoded, "base64");
      const digest = createHash("sha256").update(contents).digest("hex").slice(0, 8);
      return { path: `font-${digest}.${type}`, namespace: "font", pluginData: contents };
    });
    onLoad({ filter: /./, namespace: "font" }, ({ pluginData }) => ({ contents: pluginData, loader: "file" }));
  },
};

const { outputFiles, metafile } = await build({
  absWorkingDir: here,
  entryPoints: ["page.jsx"],
  outdir: out,
  bundle: true,
  minify: true,
  write: false,
  metafile: true,
  format: "iife",
  target: "es2020",
  jsx: "automatic",
  legalComments: "none", // licenses.txt has them whole
  entryNames: "[name]-[hash]",
  assetNames: "[name]",
  alias: { "react-style-singleton": "./no_style_tags.js" },
  define: { "process.env.NODE_ENV": '"production"', TABS: JSON.stringify(tabs) },
  plugins: [fontFiles],
});

const named = (suffix) => basename(outputFiles.find(({ path }) => path.endsWith(suffix)).path);
const page = (await text(here, "index.html"))
  .replace("page.js", named(".js"))
  .replace("page.css", named(".css"));

// All is there before the old goes; index.html comes last, and says that the rest is complete.
const licenses = await licensesOf(here, Object.keys(metafile.inputs));
await rm(out, { recursive: true, force: true });
await mkdir(out, { recursive: true });
await Promise.all(outputFiles.map(({ path, contents }) => writeFile(path, contents)));
await writeFile(join(out, "licenses.txt"), licenses);
await writeFile(join(out, "index.html"), page);

const bytes = outputFiles.reduce((sum, { contents }) => sum + contents.length, 0);
console.log(`server/static/graphiql: ${outputFiles.length} files, ${Math.round(bytes / 1000)} kB`);
