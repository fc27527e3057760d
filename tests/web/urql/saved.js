import { readFileSync } from "node:fs";
import { cacheExchange, Client, fetchExchange, subscriptionExchange } from "@urql/core";
import { makeCache } from "./cache.js";
import { given, tryQueries } from "./try_queries.js";

const schema = JSON.parse(readFileSync("introspection.json"));

await tryQueries((url, fetch, subscribe) => {
  const cache = given.cache === "graphcache" ? makeCache(schema) : cacheExchange;
  const events = subscriptionExchange({
    forwardSubscription: (request) => ({ subscribe: (sink) => ({ unsubscribe: subscribe(request, sink) }) }),
  });
  const client = new Client({ url, fetch, preferGetMethod: false, exchanges: [cache, fetchExchange, events] });
  const ask = async (document, variables, requestPolicy) => {
    const { data, error } = await client.query(document, variables, { requestPolicy }).toPromise();
    if (error) throw error;
    return data;
  };
  return {
    ask: (_name, document, variables) => ask(document, variables, "network-only"),
    follow: (_name, document, variables, heard) => client.subscription(document, variables).subscribe(heard),
    read: (_name, document, variables) => ask(document, variables, "cache-only"),
  };
});
