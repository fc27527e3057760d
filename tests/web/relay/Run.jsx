import { graphql, useMutation, useRefetchableFragment, useRelayEnvironment } from "react-relay";
import { askAgain, deleteRun, updateRun } from "./changes.js";

export function Run({ run: key }) {
  const environment = useRelayEnvironment();
  const [run, refetch] = useRefetchableFragment(
    graphql`
      fragment Run_run on Run @refetchable(queryName: "RunRefetchQuery") {
        id
        workspace
        status
        isFinished
        launchedAt
        additionalData
        study {
          id
          name
        }
        workers {
          id
          name
          queues
        }
      }
    `,
    key,
  );
  const [update] = useMutation(updateRun);
  const [remove] = useMutation(deleteRun);
  const told = (payload) => askAgain(environment, payload.effects);
  const finish = () => {
    const input = { id: run.id, status: "COMPLETED", force: true };
    update({ variables: { input }, onCompleted: (data) => told(data.updateRun) });
  };
  const discard = () => {
    const input = { id: run.id, force: true };
    remove({ variables: { input }, onCompleted: (data) => told(data.deleteRun) });
  };
  return (
    <li id={run.id}>
      {run.workspace} {run.status}
      <button onClick={finish}>finish</button>
      <button onClick={discard}>delete</button>
      <button onClick={() => refetch({}, { fetchPolicy: "store-and-network" })}>refresh</button>
    </li>
  );
}
