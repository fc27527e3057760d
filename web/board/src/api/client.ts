// The GraphQL client: urql, without a cache, since what a page shows is what the server said last.
// It sends hashes of the operations, which the server knows: so the board works where only trusted ones are answered.
import {
  Client,
  type CombinedError,
  type Exchange,
  type ExecutionResult,
  type SubscriptionForwarder,
  fetchExchange,
  mapExchange,
  subscriptionExchange,
} from "@urql/core";
import { persistedExchange } from "@urql/exchange-persisted";
import type { FormattedExecutionResult, Sink } from "graphql-ws";

import type { Connection } from "./connection.ts";
import { isOutdated } from "./errors.ts";

type Observer = Parameters<ReturnType<SubscriptionForwarder>["subscribe"]>[0];

/** Milliseconds after which a request is given up: a network that swallows it never says so. */
const ANSWERED_WITHIN = 60_000;

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
      const signals = [AbortSignal.timeout(ANSWERED_WITHIN), ...(init?.signal ? [init.signal] : [])];
      const response = await fetch(address, { ...init, credentials: "same-origin", signal: AbortSignal.any(signals) });
      if (response.status === 401) connection.logOut();
      return response;
    },
    exchanges: [
      mapExchange({ onError: (error: CombinedError) => isOutdated(error) && connection.fail() }),
      persisted,
      fetchExchange,
      subscriptionExchange({
        forwardSubscription: ({ query = "", ...request }) => ({
          // graphql-ws insists on a query, be it an empty one: the extensions name it.
          subscribe: (sink) => ({ unsubscribe: connection.follow({ ...request, query }, wholeAnswers(sink)) }),
        }),
      }),
    ],
  });
}

/** urql takes each answer for a part of one: without this the errors of an earlier answer would stay. */
function wholeAnswers(sink: Observer): Sink<FormattedExecutionResult> {
  let isFirst = true;
  return {
    error: (error) => sink.error(error),
    complete: () => sink.complete(),
    next: (answer) => {
      sink.next((isFirst || answer.errors ? answer : { ...answer, errors: [] }) as ExecutionResult);
      isFirst = false;
    },
  };
}
