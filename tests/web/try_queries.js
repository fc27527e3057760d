// Asks queries by a client, two pages of those that have pages, subscribes, then reads all queries from its cache: JSON in
// and out.
import { readFileSync } from "node:fs";
import { createClient } from "graphql-sse";

export const given = JSON.parse(readFileSync(0));
const { url, queries, subscriptions } = given;
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

const events = createClient({ url });
const subscribe = ({ query, variables }, sink) => events.subscribe({ query, variables }, sink);

// What it makes of the address: `ask` and `read` give data, `follow` calls back for each event that it has kept.
export async function tryQueries(makeClient) {
  const client = makeClient(url, recording, subscribe);
  const found = {};
  for (const { name, document, variables } of queries) {
    const begin = responses.length;
    await client.ask(name, document, variables);
    const after = "first" in variables && cursorIn(responses.at(-1));
    if (after) await client.ask(name, document, { ...variables, after });
    found[name] = { received: responses.slice(begin), kept: null };
  }
  for (const { name, document, variables } of subscriptions) {
    await new Promise((heard) => client.follow(name, document, variables, heard));
  }
  for (const { name, document, variables } of queries) {
    found[name].kept = await client.read(name, document, variables);
  }
  console.log(JSON.stringify({ found, complaints }));
  process.exit();
}
