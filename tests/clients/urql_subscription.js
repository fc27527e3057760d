// With the client of docs/clients.md: subscribes, prints each result as a line of JSON, and ends after so many.
import { gql } from "@urql/core";

const [query, count] = process.argv.slice(-2);
let heard = 0;
client.subscription(gql(query), {}).subscribe(({ data, error }) => {
  console.log(JSON.stringify(error ? { error: error.name, message: error.message } : { data }));
  if (++heard === Number(count)) process.exit(); // where Node ends a request, urql leaves a rejection that nobody handles
});
