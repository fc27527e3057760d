import { ApolloClient, gql, HttpLink } from "@apollo/client";
import { makeCache } from "./cache.js";
import { tryQueries } from "./try_queries.js";

await tryQueries((uri, fetch) => {
  const client = new ApolloClient({ cache: makeCache(), link: new HttpLink({ uri, fetch }) });
  return {
    ask: (_name, document, variables) => client.query({ query: gql(document), variables, fetchPolicy: "network-only" }),
    read: (_name, document, variables) => client.readQuery({ query: gql(document), variables }),
  };
});
