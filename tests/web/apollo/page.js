// The latest runs, with buttons that show more, add and delete, and kept right by a subscription.
import { ApolloClient, ApolloLink, gql, HttpLink } from "@apollo/client";
import { GraphQLWsLink } from "@apollo/client/link/subscriptions";
import { createClient } from "graphql-ws";
import { makeCache } from "./cache.js";
import { followed, update } from "./effects.js";
import CreateRun from "./queries/CreateRun.graphql";
import DatabaseStatus from "./queries/DatabaseStatus.graphql";
import DeleteRun from "./queries/DeleteRun.graphql";
import FinishRun from "./queries/FinishRun.graphql";
import QueueLoad from "./queries/QueueLoad.graphql";
import RecentRuns from "./queries/RecentRuns.graphql";
import RunDetail from "./queries/RunDetail.graphql";
import WatchActiveRuns from "./queries/WatchActiveRuns.graphql";

const websocket = new GraphQLWsLink(createClient({ url: `ws://${location.host}/graphql` }));
const client = new ApolloClient({
  cache: makeCache(),
  link: ApolloLink.split(
    ({ operationType }) => operationType === "subscription",
    websocket,
    new HttpLink({ uri: "/graphql" }),
  ),
});

const button = (label, press) => Object.assign(document.createElement("button"), { textContent: label, onclick: press });
const list = document.body.appendChild(document.createElement("ul"));
const total = document.body.appendChild(document.createElement("output"));
const queues = document.body.appendChild(document.createElement("pre"));

const runs = client.watchQuery({ query: gql(RecentRuns), variables: { first: 5 } });
runs.subscribe(({ data, dataState }) => {
  if (dataState !== "complete") return;
  total.textContent = data.runs.totalCount;
  list.replaceChildren(
    ...data.runs.edges.map(({ node: { id, workspace, status } }) => {
      const item = Object.assign(document.createElement("li"), { id, textContent: `${workspace} ${status} ` });
      const remove = () => client.mutate({ mutation: gql(DeleteRun), variables: { workspace, force: true }, update });
      const finish = () => client.mutate({ mutation: gql(FinishRun), variables: { runId: id } });
      const refresh = () => client.query({ query: gql(RunDetail), variables: { workspace }, fetchPolicy: "network-only" });
      item.append(button("finish", finish), button("delete", remove), button("refresh", refresh));
      return item;
    }),
  );
});
client.watchQuery({ query: gql(QueueLoad) }).subscribe(({ data, dataState }) => {
  if (dataState === "complete") queues.textContent = data.queues.map(({ queue }) => queue).join("\n");
});
client.query({ query: gql(DatabaseStatus) });
client.query({ query: gql`query Served { database { kind } viewer { roles } }` });

document.body.append(
  button("more", () => runs.fetchMore({ variables: { after: runs.getCurrentResult().data.runs.pageInfo.endCursor } })),
  button("add", () => {
    const input = { studyName: "from a page", workspace: "/page_20990101-000000", queues: ["[merlin]_page"] };
    client.mutate({ mutation: gql(CreateRun), variables: { input }, update });
  }),
);
client.subscribe({ query: gql(WatchActiveRuns) }).subscribe(({ data }) => {
  followed(client.cache, data.runChanges);
  document.body.dataset.heard = data.runChanges.kind;
});

globalThis.records = () => Object.values(client.cache.extract()).filter(({ id }) => id);
