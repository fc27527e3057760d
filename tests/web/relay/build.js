// Bundles the page, with Relay's Babel plugin for each file that has a tag `graphql`.
import { readFile } from "node:fs/promises";
import { transformAsync } from "@babel/core";
import { build } from "esbuild";

const relay = {
  name: "relay",
  setup({ onLoad }) {
    onLoad({ filter: /\/src\/\w+\.jsx?$/ }, async ({ path: filename }) => {
      const options = { filename, plugins: ["relay"], parserOpts: { plugins: ["jsx"] }, configFile: false };
      const { code } = await transformAsync(await readFile(filename, "utf8"), options);
      return { contents: code, loader: "jsx" };
    });
  },
};

const { outputFiles } = await build({
  entryPoints: ["src/Page.jsx"],
  bundle: true,
  write: false,
  jsx: "automatic",
  plugins: [relay],
});
process.stdout.write(outputFiles[0].text);
