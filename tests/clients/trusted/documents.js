// The operations of a folder that are no subscriptions: name, text, and variables that each of them has a value for.
import { readdirSync, readFileSync } from "node:fs";

const files = readdirSync("queries").sort();
export const documents = files
  .map((name) => [name.replace(".graphql", ""), readFileSync(`queries/${name}`, "utf8"), {}])
  .filter(([, text]) => !/^subscription /m.test(text));
