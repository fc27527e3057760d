// Subscribes by urql with its fetchExchange alone, prints each result as a line of JSON, and ends after so many.
import { Client, fetchExchange, gql } from "@urql/core";

const [url, query, count, accept] = process.argv.slice(2);
const client = new Client({
  url,
  preferGetMethod: false,
  exchanges: [fetchExchange],
  fetchSubscriptions: true,
  fetchOptions: accept ? { headers: { accept } } : {},
});

let heard = 0;
client.subscription(gql(query), {}).subscribe(({ data, error }) => {
  console.log(JSON.stringify(error ? { error: error.name, message: error.message } : { data }));
  if (++heard === Number(count)) process.exit(); // where Node ends a request, urql leaves a rejection that nobody handles
});
