// Relay's network with the subscribe function of docs/clients.md, as requestSubscription uses it.
import { Network } from "relay-runtime";
import { fail } from "./page.js";
import { subscribe } from "./relay_subscribe.js";
import { keepRuns, RUNS } from "./runs.js";

const network = Network.create(() => Promise.reject(new Error("no query is sent here")), subscribe);
const runs = { name: "Runs", text: RUNS, operationKind: "subscription", id: null, cacheID: "runs", metadata: {} };
network.execute(runs, {}, {}).subscribe({ next: keepRuns(), error: fail });
