// Asks an operation by Relay's runtime, and prints what its store then holds.
import runtime from "relay-runtime";
import query from "./src/__generated__/StudiesQuery.graphql.js";
import { environment } from "./client.js";

const data = await runtime.fetchQuery(environment, query, { first: 1 }).toPromise();
console.log(JSON.stringify({ id: query.params.id, text: query.params.text, data }));
