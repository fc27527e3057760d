// Asks the same query by two clients, one after the other, with automatic persisted queries; prints what was sent.
import { readFileSync } from "node:fs";
import { Client, fetchExchange } from "@urql/core";
import { persistedExchange } from "@urql/exchange-persisted";

const { url, useGet } = JSON.parse(readFileSync(0));
const sent = [];
const recording = async (uri, options) => {
  sent.push([options.method, options.body?.includes("roles") || decodeURIComponent(uri).includes("roles")]);
  return fetch(uri, options);
};
const answers = [];
for (let number = 0; number < 2; number++) {
  const persisted = persistedExchange({ preferGetForPersistedQueries: useGet });
  const client = new Client({ url, fetch: recording, preferGetMethod: false, exchanges: [persisted, fetchExchange] });
  const { data, error } = await client.query("query Viewer { viewer { roles } }", {}).toPromise();
  if (error) throw error;
  answers.push(data.viewer.roles);
}
console.log(JSON.stringify({ sent, answers }));
