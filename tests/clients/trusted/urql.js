// Asks every operation in a folder by urql, and prints the codes of its errors by its name.
import { documents } from "./documents.js";
import { client } from "./client.js";

const codes = {};
for (const [name, text, variables] of documents) {
  const ask = text.includes("\nmutation ") || text.startsWith("mutation ") ? client.mutation : client.query;
  const { error } = await ask.call(client, text, variables);
  if (error?.networkError) throw error.networkError;
  codes[name] = error ? error.graphQLErrors.map((one) => one.extensions.code) : [];
}
console.log(JSON.stringify({ codes }));
