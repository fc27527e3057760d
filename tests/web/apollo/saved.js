import { ApolloClient, ApolloLink, gql, HttpLink, Observable } from "@apollo/client";
import { print } from "graphql";
import { makeCache } from "./cache.js";
import { tryQueries } from "./try_queries.js";

await tryQueries((uri, fetch, subscribe) => {
  const events = new ApolloLink(
    ({ query, variables }) => new Observable((sink) => subscribe({ query: print(query), variables }, sink)),
  );
  const isEvents = ({ operationType }) => operationType === "subscription";
  const link = ApolloLink.split(isEvents, events, new HttpLink({ uri, fetch }));
  const client = new ApolloClient({ cache: makeCache(), link });
  return {
    ask: (_name, document, variables) => client.query({ query: gql(document), variables, fetchPolicy: "network-only" }),
    follow: (_name, document, variables, heard) => client.subscribe({ query: gql(document), variables }).subscribe(heard),
    read: (_name, document, variables) => client.readQuery({ query: gql(document), variables }),
  };
});
