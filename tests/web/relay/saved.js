import { createRequire } from "node:module";
import { tryQueries } from "./try_queries.js";

const require = createRequire(import.meta.url);
const relay = require("relay-runtime");
const { createOperationDescriptor, Environment, fetchQuery, Network, Observable, RecordSource, Store } = relay;
const compiled = async (name, kind = "Query") => (await import(`./src/__generated__/${name}${kind}.graphql.js`)).default;

await tryQueries((url, fetch, subscribe) => {
  const request = async ({ text: query }, variables) => {
    const body = JSON.stringify({ query, variables });
    const response = await fetch(url, { method: "POST", headers: { "content-type": "application/json" }, body });
    return response.json();
  };
  const events = ({ text: query }, variables) => Observable.create((sink) => subscribe({ query, variables }, sink));
  const store = new Store(new RecordSource(), { gcReleaseBufferSize: 100 }); // of queries that nothing shows
  const environment = new Environment({ network: Network.create(request, events), store });
  return {
    ask: async (name, _document, variables) => fetchQuery(environment, await compiled(name), variables).toPromise(),
    follow: async (name, _document, variables, onNext) => {
      relay.requestSubscription(environment, { subscription: await compiled(name, "Subscription"), variables, onNext });
    },
    read: async (name, _document, variables) => {
      const operation = createOperationDescriptor(await compiled(name), variables);
      if (environment.check(operation).status !== "available") return "something is missing";
      const { data, isMissingData } = environment.lookup(operation.fragment);
      return isMissingData ? "something is missing" : data;
    },
  };
});
