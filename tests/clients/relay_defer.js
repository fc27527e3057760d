// Executes a compiled query by Relay, and prints what its deferred fragment reads from the store.
import relay from "relay-runtime";

const { createOperationDescriptor, Environment, getSingularSelector, Network, RecordSource, Store } = relay;
const [directory] = process.argv.slice(-1);
const artifact = async (name) => (await import(`${directory}/${name}.graphql.js`)).default;
const [query, fragment] = await Promise.all(["RunsQuery", "RunsQuery_rest"].map(artifact));

const network = Network.create(async ({ text }, variables) => {
  const body = JSON.stringify({ query: text, variables });
  const response = await fetch("http://localhost:8000/graphql", { method: "POST", headers: { "content-type": "application/json" }, body });
  return response.json();
});
const environment = new Environment({ network, store: new Store(new RecordSource()) });
const operation = createOperationDescriptor(query, {});
environment.execute({ operation }).subscribe({
  complete() {
    const { runs } = environment.lookup(operation.fragment).data;
    const { data, isMissingData } = environment.lookup(getSingularSelector(fragment, runs));
    console.log(JSON.stringify({ totalCount: runs.totalCount, data, isMissingData }));
  },
  error: (error) => console.log(JSON.stringify({ failed: error.message })),
});
