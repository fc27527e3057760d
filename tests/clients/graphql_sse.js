// Subscribes by graphql-sse, prints each result as a line of JSON, and ends after so many.
import { createClient } from "graphql-sse";

const [url, query, count] = process.argv.slice(2);
const client = createClient({ url, retryAttempts: 0 });
const results = client.iterate({ query });
let heard = 0;
for await (const result of results) {
  console.log(JSON.stringify(result));
  if (++heard === Number(count)) break; // which ends the subscription
}
client.dispose();
