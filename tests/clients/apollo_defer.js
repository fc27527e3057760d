// With the client of docs/clients.md: asks once, and prints each result as a line of JSON.
import { gql } from "@apollo/client";

const [query] = process.argv.slice(-1);
client.watchQuery({ query: gql(query) }).subscribe(({ data, error, dataState }) => {
  if (dataState !== "empty") console.log(JSON.stringify({ data, dataState, error: error?.message }));
});
