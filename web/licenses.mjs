// The licences of what is bundled: it may be passed on with them only.
import { readFile, readdir } from "node:fs/promises";
import { join } from "node:path";

/** `inputs`: the paths of the bundled files, relative to the folder `here` that holds their node_modules. */
export async function licensesOf(here, inputs) {
  const text = (...path) => readFile(join(here, ...path), "utf8");
  const found = inputs.map((input) => input.match(/^node_modules\/(?:@[^/]+\/)?[^/]+/)?.[0]);
  const packages = [...new Set(found.filter(Boolean))].sort();
  const texts = packages.map(async (directory) => {
    const { name, version, license } = JSON.parse(await text(directory, "package.json"));
    const file = (await readdir(join(here, directory))).find((entry) => /^licen[cs]e/i.test(entry));
    const terms = file ? await text(directory, file) : "";
    return `${name} ${version} (${license})\n\n${terms}`;
  });
  return (await Promise.all(texts)).join(`\n${"-".repeat(80)}\n\n`);
}
