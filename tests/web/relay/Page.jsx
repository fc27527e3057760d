// The latest runs, with buttons that show more, add, change and delete, and kept right by subscriptions.
import { createClient } from "graphql-ws";
import { StrictMode, Suspense, useMemo, useState } from "react";
import { createRoot } from "react-dom/client";
import {
  graphql,
  RelayEnvironmentProvider,
  useLazyLoadQuery,
  useMutation,
  usePaginationFragment,
  useRelayEnvironment,
  useSubscription,
} from "react-relay";
import { Observable } from "relay-runtime";
import { askAgain, createRun, othersUpdater, runsUpdater, watchOthers, watchRuns } from "./changes.js";
import { makeEnvironment } from "./environment.js";
import { Run } from "./Run.jsx";

const COUNTS = graphql`
  subscription PageCountsSubscription {
    live {
      runCounts {
        status
        count
      }
      queues {
        queue
      }
    }
  }
`;

function Page() {
  const environment = useRelayEnvironment();
  const query = useLazyLoadQuery(
    graphql`
      query PageQuery {
        ...Page_runs
      }
    `,
    {},
  );
  const { data, loadNext, refetch } = usePaginationFragment(
    graphql`
      fragment Page_runs on Query
      @argumentDefinitions(count: { type: "Int", defaultValue: 5 }, cursor: { type: "String" })
      @refetchable(queryName: "PagePaginationQuery") {
        runs(first: $count, after: $cursor) @connection(key: "Page_runs") {
          __id
          edges {
            node {
              id
              ...Run_run
            }
          }
        }
      }
    `,
    query,
  );
  const [{ runCounts, queues }, setCounts] = useState({ runCounts: [], queues: [] });
  const [create] = useMutation(createRun);
  const add = () => {
    const input = { studyName: "from a page", workspace: "/page_20990101-000000", queues: ["[merlin]_page"] };
    create({
      variables: { input, connections: [data.runs.__id] },
      onCompleted: ({ createRun: { effects } }) => askAgain(environment, effects),
    });
  };
  const heard = ({ runChanges: { kind } }) => {
    if (kind === "SNAPSHOT_END") refetch({}, { fetchPolicy: "store-and-network" });
    document.body.dataset.heard = kind;
  };
  useSubscription(
    useMemo(
      () => ({
        subscription: watchRuns,
        variables: { filter: { isFinished: false } },
        updater: runsUpdater("Page_runs"),
        onNext: heard,
      }),
      [],
    ),
  );
  useSubscription(
    useMemo(() => ({ subscription: COUNTS, variables: {}, onNext: ({ live }) => setCounts(live) }), []),
  );
  useSubscription(useMemo(() => ({ subscription: watchOthers, variables: {}, updater: othersUpdater }), []));
  return (
    <>
      <ul>
        {data.runs.edges.map(
          ({ node }) =>
            node && (
              <Suspense key={node.id}>
                <Run run={node} />
              </Suspense>
            ),
        )}
      </ul>
      <output>{runCounts.reduce((sum, { count }) => sum + count, 0)}</output>
      <pre>{queues.map(({ queue }) => queue).join("\n")}</pre>
      <button onClick={() => loadNext(5)}>more</button>
      <button onClick={add}>add</button>
    </>
  );
}

const websocket = createClient({ url: `ws://${location.host}/graphql` });
const environment = makeEnvironment(({ text: query }, variables) =>
  Observable.create((sink) => websocket.subscribe({ query, variables }, sink)),
);
createRoot(document.querySelector("main")).render(
  <StrictMode>
    <RelayEnvironmentProvider environment={environment}>
      <Suspense>
        <Page />
      </Suspense>
    </RelayEnvironmentProvider>
  </StrictMode>,
);

globalThis.records = () => Object.values(environment.getStore().getSource().toJSON()).filter((record) => record?.id);
