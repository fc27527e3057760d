// With the function of docs/clients.md: subscribes, prints each result as a line of JSON, and ends after so many.
const [query, count] = process.argv.slice(-2);
let heard = 0;
const subscription = subscribe({ name: null, text: query }, {}).subscribe({
  next({ data, errors }) {
    console.log(JSON.stringify(errors ? { error: "GraphQL", message: errors[0].message } : { data }));
    if (++heard === Number(count)) subscription.unsubscribe(); // which ends the request
  },
  error: (error) => console.log(JSON.stringify({ failed: error.name, message: error.message })),
});
