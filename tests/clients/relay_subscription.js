// Subscribes by Apollo's network function for Relay, prints each result as a line of JSON, and ends after so many.
import { createFetchMultipartSubscription } from "@apollo/client/utilities/subscriptions/relay";

const [url, query, count] = process.argv.slice(2);
const subscribe = createFetchMultipartSubscription(url);

let heard = 0;
const subscription = subscribe({ name: null, text: query }, {}).subscribe({
  next({ data, errors }) {
    console.log(JSON.stringify(errors ? { error: "GraphQL", message: errors[0].message } : { data }));
    if (++heard === Number(count)) subscription.unsubscribe(); // which ends the request
  },
  error: (error) => console.log(JSON.stringify({ failed: error.name, message: error.message })),
});
