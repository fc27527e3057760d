// Subscribes by fetch and meros, prints each result as a line of JSON, and ends after so many.
import { meros } from "meros/browser";

const [query, count] = process.argv.slice(-2);
const gone = new AbortController();
const response = await fetch("http://localhost:8000/graphql", {
  method: "POST",
  headers: { accept: "multipart/mixed", "content-type": "application/json" },
  body: JSON.stringify({ query }),
  signal: gone.signal,
});
let heard = 0;
for await (const part of await meros(response)) {
  if (!part.json) throw new Error("a part that is no JSON");
  const { data, errors } = part.body;
  console.log(JSON.stringify(errors ? { error: "GraphQL", message: errors[0].message } : { data }));
  if (++heard === Number(count)) break;
}
gone.abort();
