// The audits of GraphQL over HTTP: prints every one that is not passed, and how many there are.
import { auditServer } from "graphql-http";

const results = await auditServer({ url: process.argv[2] });
const failed = results.filter((result) => result.status !== "ok").map(({ id, name, reason }) => ({ id, name, reason }));
console.log(JSON.stringify({ all: results.length, failed }));
