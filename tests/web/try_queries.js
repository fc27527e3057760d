// Asks queries by a client, two pages of those that have pages, then reads them all from its cache: JSON in, JSON out.
import { readFileSync } from "node:fs";

export const given = JSON.parse(readFileSync(0));
const { url, queries } = given;
const complaints = [];
for (const level of ["debug", "info", "warn", "error"]) console[level] = (...words) => complaints.push(words.join(" "));

const responses = [];
const recording = async (...request) => {
  const response = await fetch(...request);
  responses.push(await response.clone().json());
  return response;
};

function cursorIn(value) {
  if (value === null || typeof value !== "object") return undefined;
  return value.endCursor ?? Object.values(value).map(cursorIn).find(Boolean);
}

export async function tryQueries(makeClient) {
  const client = makeClient(url, recording);
  const found = {};
  for (const { name, document, variables } of queries) {
    const begin = responses.length;
    await client.ask(name, document, variables);
    const after = "first" in variables && cursorIn(responses.at(-1));
    if (after) await client.ask(name, document, { ...variables, after });
    found[name] = { received: responses.slice(begin), kept: null };
  }
  for (const { name, document, variables } of queries) {
    found[name].kept = await client.read(name, document, variables);
  }
  console.log(JSON.stringify({ found, complaints }));
  process.exit();
}
