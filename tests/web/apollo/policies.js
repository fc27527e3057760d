// Prints what the cache does with each field and type that has a policy, as JSON.
import { makeCache } from "./cache.js";

const { possibleTypes, typePolicies } = makeCache().config;
const ofField = ({ keyArgs, merge, read }) => (merge === false ? "replaced" : keyArgs ? keyArgs.join() : read && "looked up");
const ofType = ({ keyFields, merge }) => (keyFields ? "one" : merge ? "merged" : undefined);
const fields = Object.entries(typePolicies).flatMap(([type, policy]) =>
  Object.entries(policy.fields ?? {}).map(([name, each]) => [`${type}.${name}`, ofField(each)]),
);
const types = Object.entries(typePolicies).map(([type, policy]) => [type, ofType(policy)]);
console.log(JSON.stringify({ possibleTypes, fields: Object.fromEntries(fields), types: Object.fromEntries(types) }));
