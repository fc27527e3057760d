// The GraphQL client: urql, without a cache, since what a page shows is what the server said last.
// It sends the hashes of the operations, which the server knows: so the board works where only trusted ones are answered.
import { Client, type Exchange, fetchExchange, subscriptionExchange } from "@urql/core";
import { persistedExchange } from "@urql/exchange-persisted";

import type { Connection } from "./connection.ts";

export const GRAPHQL = new URL("graphql", location.href).href;

const persisted: Exchange = persistedExchange({
  enforcePersistedQueries: true,
  enableForMutation: true,
  enableForSubscriptions: true,
  preferGetForPersistedQueries: false,
  generateHash: async (_, document) => (document as unknown as { __meta__: { hash: string } }).__meta__.hash,
});

export function makeClient(connection: Connection): Client {
  return new Client({
    url: GRAPHQL,
    requestPolicy: "network-only",
    preferGetMethod: false,
    fetch: async (address, init) => {
      const response = await fetch(address, { ...init, credentials: "same-origin" });
      if (response.status === 401) connection.logOut();
      return response;
    },
    exchanges: [
      persisted,
      fetchExchange,
      subscriptionExchange({
        forwardSubscription: ({ query = "", ...request }) => ({
          // graphql-ws insists on a query, be it an empty one: the extensions name it.
          subscribe: (sink) => ({ unsubscribe: connection.socket.subscribe({ ...request, query }, sink as never) }),
        }),
      }),
    ],
  });
}
