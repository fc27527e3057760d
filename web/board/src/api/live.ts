// What the server says of a live query, from now on.
import type { TypedDocumentNode } from "@graphql-typed-document-node/core";
import type { CombinedError } from "@urql/core";
import { useEffect } from "react";
import { useSubscription } from "urql";

import { isOutdated } from "./errors.ts";

/** Milliseconds after which the server is asked anew that refused to answer: the reason may be over by then. */
const ASK_AGAIN = 10_000;

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
  const [{ data, error }, ask] = useSubscription({ query, variables, pause });
  const isRefused = error !== undefined && !isOutdated(error) && !pause;
  useEffect(() => {
    if (!isRefused) return;
    const timer = setInterval(ask, ASK_AGAIN);
    return () => clearInterval(timer);
  }, [isRefused, ask]);
  return { data: data?.live, error };
}
