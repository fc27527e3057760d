// Asks every operation in a folder by a client of Apollo, and prints the codes of its errors by its name, and the cache.
import { CombinedGraphQLErrors, gql } from "@apollo/client";
import { documents } from "./documents.js";
import { client } from "./client.js";

const codes = {};
for (const [name, text, variables] of documents) {
  const document = gql(text);
  const { operation } = document.definitions.find((one) => one.kind === "OperationDefinition");
  const settings = { variables, errorPolicy: "all", fetchPolicy: operation === "query" ? undefined : "no-cache" };
  const { error } = await (operation === "query"
    ? client.query({ query: document, ...settings })
    : client.mutate({ mutation: document, ...settings }));
  if (error && !CombinedGraphQLErrors.is(error)) throw error;
  codes[name] = error ? error.errors.map((one) => one.extensions.code) : [];
}
console.log(JSON.stringify({ codes, cached: Object.keys(client.cache.extract()) }));
