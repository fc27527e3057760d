// Subscribes by Apollo Client with an HttpLink alone, prints each result as a line of JSON, and ends after so many.
import { ApolloClient, ApolloLink, gql, HttpLink, InMemoryCache } from "@apollo/client";
import { RetryLink } from "@apollo/client/link/retry";

const [uri, query, count, authorization] = process.argv.slice(2);
const headers = authorization ? { authorization } : {};
const client = new ApolloClient({
  link: ApolloLink.from([
    new RetryLink({ delay: { initial: 100 }, attempts: { max: Infinity, retryIf: (error) => !isFinal(error) } }),
    new HttpLink({ uri, headers }),
  ]),
  cache: new InMemoryCache(),
});

// A new connection brings the same refusal: retrying helps when the connection was lost, or the server restarts.
function isFinal(error) {
  const codes = (error?.errors ?? []).map(({ extensions }) => extensions?.code);
  return codes.some((code) => ["TOKEN_EXPIRED", "INVALID_TOKEN", "FORBIDDEN"].includes(code)) || error?.statusCode === 401;
}

let heard = 0;
const subscription = client.subscribe({ query: gql(query) }).subscribe({
  next({ data, error }) {
    console.log(JSON.stringify(error ? { error: error.name, message: error.message } : { data }));
    if (++heard === Number(count)) subscription.unsubscribe(); // which ends the request
  },
  error: (error) => console.log(JSON.stringify({ failed: error.name, message: error.message })),
  complete: () => console.log(JSON.stringify({ complete: true })),
});
