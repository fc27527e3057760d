// Subscribes by graphql-ws, prints each result as a line of JSON, and ends after so many.
import { createClient } from "graphql-ws";
import { WebSocket } from "ws";

const [url, query, count] = process.argv.slice(2);
const client = createClient({ url, webSocketImpl: WebSocket, retryAttempts: 0 });
const results = client.iterate({ query });
let heard = 0;
for await (const result of results) {
  console.log(JSON.stringify(result));
  if (++heard === Number(count)) break; // which ends the subscription
}
await client.dispose();
