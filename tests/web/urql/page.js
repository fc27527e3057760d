// The latest runs, with buttons that show more, add and delete, and kept right by a subscription.
import { Client, fetchExchange, subscriptionExchange } from "@urql/core";
import { createClient } from "graphql-ws";
import { makeCache } from "./cache.js";
import introspection from "./introspection.json";
import CreateRun from "./queries/CreateRun.graphql";
import DatabaseStatus from "./queries/DatabaseStatus.graphql";
import DeleteRun from "./queries/DeleteRun.graphql";
import FinishRun from "./queries/FinishRun.graphql";
import QueueLoad from "./queries/QueueLoad.graphql";
import RecentRuns from "./queries/RecentRuns.graphql";
import RunDetail from "./queries/RunDetail.graphql";
import WatchActiveRuns from "./queries/WatchActiveRuns.graphql";

const websocket = createClient({ url: `ws://${location.host}/graphql` });
const client = new Client({
  url: "/graphql",
  preferGetMethod: false,
  exchanges: [
    makeCache(introspection),
    fetchExchange,
    subscriptionExchange({
      forwardSubscription: ({ query, variables }) => ({
        subscribe: (sink) => ({ unsubscribe: websocket.subscribe({ query, variables }, sink) }),
      }),
    }),
  ],
});

const kept = new Map(); // records by id, as the results show them
function keep(value) {
  if (value === null || typeof value !== "object") return value;
  if (Array.isArray(value)) return value.map(keep);
  const fields = Object.fromEntries(Object.entries(value).map(([name, each]) => [name, keep(each)]));
  if (!("id" in value)) return fields;
  kept.set(value.id, fields);
  return { __ref: value.id };
}

const button = (label, press) => Object.assign(document.createElement("button"), { textContent: label, onclick: press });
const list = document.body.appendChild(document.createElement("ul"));
const total = document.body.appendChild(document.createElement("output"));
const queues = document.body.appendChild(document.createElement("pre"));

let newest;
function show({ data, stale, error }) {
  if (error) console.error(error);
  if (!data || stale) return;
  newest = data.runs;
  kept.clear();
  keep(newest);
  total.textContent = newest.totalCount;
  list.replaceChildren(
    ...newest.edges.map(({ node: { id, workspace, status } }) => {
      const item = Object.assign(document.createElement("li"), { id, textContent: `${workspace} ${status} ` });
      const finish = () => client.mutation(FinishRun, { runId: id }).toPromise();
      const remove = () => client.mutation(DeleteRun, { workspace, force: true }).toPromise().then(showFirst);
      const refresh = () => client.query(RunDetail, { workspace }, { requestPolicy: "network-only" }).toPromise();
      item.append(button("finish", finish), button("delete", remove), button("refresh", refresh));
      return item;
    }),
  );
}
const page = (after) => client.query(RecentRuns, { first: 5, after }).subscribe(show);

page();
const others = [];
const showFirst = () => others.splice(0).forEach(({ unsubscribe }) => unsubscribe());
client.query(QueueLoad, {}).subscribe(({ data }) => {
  queues.textContent = data?.queues.map(({ queue }) => queue).join("\n");
});
client.query(DatabaseStatus, {}).toPromise();
document.body.append(
  button("more", () => others.push(page(newest.pageInfo.endCursor))),
  button("add", () => {
    const input = { studyName: "from a page", workspace: "/page_20990101-000000", queues: ["[merlin]_page"] };
    client.mutation(CreateRun, { input }).toPromise().then(showFirst);
  }),
);
client.subscription(WatchActiveRuns, {}).subscribe(({ data }) => {
  if (["CREATED", "DELETED", "SNAPSHOT_END"].includes(data?.runChanges.kind)) showFirst();
  if (data) document.body.dataset.heard = data.runChanges.kind;
});

globalThis.records = () => [...kept.values()];
