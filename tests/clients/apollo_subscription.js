// With the client of docs/clients.md: subscribes, prints each result as a line of JSON, and ends after so many.
import { gql } from "@apollo/client";

const [query, count] = process.argv.slice(-2);
let heard = 0;
const subscription = client.subscribe({ query: gql(query) }).subscribe({
  next({ data, error }) {
    console.log(JSON.stringify(error ? { error: error.name, message: error.message } : { data }));
    if (++heard === Number(count)) subscription.unsubscribe(); // which ends the request
  },
  error: (error) => console.log(JSON.stringify({ failed: error.name, message: error.message })),
  complete: () => console.log(JSON.stringify({ complete: true })),
});
