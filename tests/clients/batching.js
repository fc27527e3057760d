// Two queries in one request, by Apollo Client and by graphql-request: prints what each of them gets.
import { ApolloClient, ApolloLink, InMemoryCache, gql } from "@apollo/client";
import { BatchHttpLink } from "@apollo/client/link/batch-http";
import { GraphQLClient } from "graphql-request";

const [url] = process.argv.slice(2);
const RUNS = "query Runs { runs { nodes { id workspace } } }";
const STUDIES = "query Studies { studies { totalCount } }";

let requests = 0;
const counting = (...sent) => {
  requests += 1;
  return fetch(...sent);
};

const client = new ApolloClient({
  cache: new InMemoryCache(),
  link: ApolloLink.from([new BatchHttpLink({ uri: url, batchMax: 10, batchInterval: 20, fetch: counting })]),
});
const asked = [RUNS, STUDIES].map((text) => client.query({ query: gql(text), errorPolicy: "all" }));
const apollo = (await Promise.all(asked)).map(({ data }) => data);

const graphql = new GraphQLClient(url, { fetch: counting });
const answered = await graphql.batchRequests([{ document: RUNS }, { document: STUDIES }]);
const request = answered.map(({ data }) => data);

console.log(JSON.stringify({ requests, apollo, request }));
process.exit(0);
