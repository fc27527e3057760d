// With the client of docs/clients.md: asks once, and prints each result as a line of JSON.
import { gql } from "@urql/core";

const [query] = process.argv.slice(-1);
client.query(gql(query), {}).subscribe(({ data, error, hasNext, stale }) => {
  console.log(JSON.stringify({ data, error: error?.message, hasNext, stale }));
});
