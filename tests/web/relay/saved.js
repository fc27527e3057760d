import { createRequire } from "node:module";
import { tryQueries } from "./try_queries.js";

const require = createRequire(import.meta.url);
const { createOperationDescriptor, Environment, fetchQuery, Network, RecordSource, Store } = require("relay-runtime");
const compiled = async (name) => (await import(`./src/__generated__/${name}Query.graphql.js`)).default;

await tryQueries((url, fetch) => {
  const request = async ({ text: query }, variables) => {
    const body = JSON.stringify({ query, variables });
    const response = await fetch(url, { method: "POST", headers: { "content-type": "application/json" }, body });
    return response.json();
  };
  const store = new Store(new RecordSource(), { gcReleaseBufferSize: 100 }); // of queries that nothing shows
  const environment = new Environment({ network: Network.create(request), store });
  return {
    ask: async (name, _document, variables) => fetchQuery(environment, await compiled(name), variables).toPromise(),
    read: async (name, _document, variables) => {
      const operation = createOperationDescriptor(await compiled(name), variables);
      if (environment.check(operation).status !== "available") return "something is missing";
      const { data, isMissingData } = environment.lookup(operation.fragment);
      return isMissingData ? "something is missing" : data;
    },
  };
});
