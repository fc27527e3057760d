// One query by each common client of JavaScript: prints what each of them gets. In a page, `ask` is called instead.
import { ApolloClient, ApolloLink, InMemoryCache, gql } from "@apollo/client";
import { HttpLink } from "@apollo/client/link/http";
import { PersistedQueryLink } from "@apollo/client/link/persisted-queries";
import { Client, fetchExchange } from "@urql/core";
import axios from "axios";
import { GraphQLClient } from "graphql-request";

const QUERY = "query Runs { runs { nodes { id workspace } } }";

const sha256 = async (text) => {
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
  return [...new Uint8Array(digest)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
};

const apollo = async (...links) => {
  const client = new ApolloClient({
    cache: new InMemoryCache(),
    link: ApolloLink.from(links),
    clientAwareness: { name: "dash", version: "1.0" },
  });
  return (await client.query({ query: gql(QUERY), errorPolicy: "none" })).data;
};

const clients = {
  Apollo: (url, headers) => apollo(new HttpLink({ uri: url, headers })),
  "Apollo by GET": (url, headers) => apollo(new HttpLink({ uri: url, headers, useGETForQueries: true })),
  "Apollo by hash": (url, headers) =>
    apollo(new PersistedQueryLink({ sha256, useGETForHashedQueries: true }), new HttpLink({ uri: url, headers })),
  urql: async (url, headers) => {
    const client = new Client({ url, exchanges: [fetchExchange], fetchOptions: { headers } });
    const { data, error } = await client.query(QUERY, {}).toPromise();
    if (error) throw error;
    return data;
  },
  "urql by POST": async (url, headers) => {
    const client = new Client({ url, exchanges: [fetchExchange], fetchOptions: { headers }, preferGetMethod: false });
    const { data, error } = await client.query(QUERY, {}).toPromise();
    if (error) throw error;
    return data;
  },
  "graphql-request": (url, headers) => new GraphQLClient(url, { headers }).request(QUERY),
  axios: async (url, headers) => (await axios.post(url, { query: QUERY }, { headers })).data.data,
  // As Relay's documentation fetches.
  fetch: async (url, headers) => {
    const body = JSON.stringify({ query: QUERY, variables: {} });
    const response = await fetch(url, { method: "POST", headers: { "content-type": "application/json", ...headers }, body });
    return (await response.json()).data;
  },
};

// The workspaces that each client reads, or why it can't.
export const ask = async (url, headers = {}) => {
  const told = {};
  for (const [name, query] of Object.entries(clients)) {
    try {
      told[name] = (await query(url, headers)).runs.nodes.map(({ workspace }) => workspace).join();
    } catch (error) {
      told[name] = String(error);
    }
  }
  return told;
};

if (typeof process === "undefined") {
  globalThis.ask = ask;
} else {
  console.log(JSON.stringify(await ask(process.argv[2], { authorization: `Bearer ${process.argv[3]}` })));
  process.exit(0);
}
