// What the server says of a live query, from now on.
import type { TypedDocumentNode } from "@graphql-typed-document-node/core";
import type { CombinedError } from "@urql/core";
import { useSubscription } from "urql";

export interface Live<T> {
  /** The last answer; undefined until the first one. It stays while the connection is lost. */
  data: T | undefined;
  error: CombinedError | undefined;
}

/** Give the component that uses it a `key` of the variables: an answer of other variables is never shown then. */
export function useLive<T, V extends Record<string, unknown>>(
  query: TypedDocumentNode<{ live: T }, V>,
  variables: V,
  { pause = false } = {},
): Live<T> {
  const [{ data, error }] = useSubscription({ query, variables, pause });
  return { data: data?.live, error };
}
