import { useQuery } from "urql";

import { BoardRunSpecDocument } from "../../gql/graphql.ts";
import { Copy } from "../../parts/copy.tsx";
import { Failure, Loading } from "../../parts/states.tsx";
import { Unread } from "./unread.tsx";

export function Spec({ run }: { run: string }) {
  const [{ data, error }, ask] = useQuery({ query: BoardRunSpecDocument, variables: { id: run } });
  const spec = data?.run?.spec;
  if (error) return <Failure error={error} retry={() => ask()} />;
  if (!data) return <Loading rows={6} />;
  if (spec == null) return <Unread what="Its contents" retry={ask} />;
  return (
    <>
      <Copy text={spec} label="the specification" />
      <pre className="text" tabIndex={0} role="region" aria-label="Text of the specification">
        {spec}
      </pre>
    </>
  );
}
