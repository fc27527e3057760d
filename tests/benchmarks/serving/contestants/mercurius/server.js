// Serves records from memory by mercurius with its JIT: `node server.js RECORDS`, a file that records.py has written.
import { readFileSync } from "node:fs";
import fastify from "fastify";
import mercurius from "mercurius";

const schema = `
enum RunStatus { INITIALIZED QUEUED RUNNING COMPLETED CANCELLED FAILED UNKNOWN }
type Query { runs(first: Int!): RunConnection! }
type RunConnection { nodes: [Run!]! }
type Run { id: ID! workspace: String! status: RunStatus! queues: [String!]! study: Study workers: [LogicalWorker!]! }
type Study { id: ID! name: String! }
type LogicalWorker { id: ID! name: String! queues: [String!]! }
`;

const { studies, workers, runs } = JSON.parse(readFileSync(process.argv[2], "utf8"));
const all = runs.map((run) => ({
  ...run,
  study: run.study === null ? null : studies[run.study],
  workers: run.workers.map((place) => workers[place]),
}));
const resolvers = { Query: { runs: (_, { first }) => ({ nodes: all.slice(0, first) }) } };

const app = fastify();
app.register(mercurius, { schema, resolvers, jit: 1, graphiql: false });
const address = await app.listen({ host: "127.0.0.1", port: 0 });
console.log(`${address}/graphql`);
