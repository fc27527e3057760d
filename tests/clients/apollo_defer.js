// Asks by Apollo Client with an incremental handler, and prints each result as a line of JSON.
import { ApolloClient, gql, HttpLink, InMemoryCache } from "@apollo/client";
import { Defer20220824Handler, GraphQL17Alpha9Handler } from "@apollo/client/incremental";

const [uri, query, handler, accept] = process.argv.slice(2);
const handlers = { Defer20220824Handler, GraphQL17Alpha9Handler };
const client = new ApolloClient({
  link: new HttpLink({ uri, headers: accept ? { accept } : {} }),
  cache: new InMemoryCache(),
  incrementalHandler: new handlers[handler](),
});
client.watchQuery({ query: gql(query) }).subscribe(({ data, error, dataState }) => {
  if (dataState !== "empty") console.log(JSON.stringify({ data, dataState, error: error?.message }));
});
