// The pages of a connection, one after the other: each is asked for when the end of those before it comes near.
import type { TypedDocumentNode } from "@graphql-typed-document-node/core";
import type { CombinedError } from "@urql/core";
import { useEffect, useRef, useState } from "react";
import { useClient } from "urql";

import { recall, remember } from "./memory.ts";

export interface Connected<T, A = undefined> {
  totalCount: number;
  nodes: readonly T[];
  pageInfo: { hasNextPage: boolean; endCursor?: string | null };
  /** What else it says of the list. */
  about?: A;
}

interface Known<T, A> {
  /** All rows that were asked for so far; each id once. */
  rows: readonly T[];
  /** Theirs. The set of one version grows: it is not copied for each page. */
  ids: ReadonlySet<string>;
  /** As the last page said it. */
  totalCount: number | undefined;
  about: A | undefined;
  /** Where the next page begins; null at the first one and after the last one. */
  cursor: string | null;
  /** Whether the list goes on after `rows`. */
  hasMore: boolean;
  /** How many first pages there were. */
  version: number;
}

export interface Pages<T, A = undefined> extends Known<T, A> {
  isLoading: boolean;
  /** Why a page did not come. `more` asks for it again. */
  error: CombinedError | undefined;
  /** Whether the list has more rows than this page holds. */
  isFull: boolean;
  /** Asks for the next page, if there is one and it is not on its way. */
  more: () => void;
  /** Asks for the first page anew; what stands there stays until it comes. */
  reload: () => void;
}

const FIRST = 100;
const NEXT = 500; // the most that the API allows
const MOST = 100_000;
const AGAIN_AFTER = 5_000;
const NOTHING: Known<never, never> = {
  rows: [],
  ids: new Set<string>(),
  totalCount: undefined,
  about: undefined,
  cursor: null,
  hasMore: true,
  version: 0,
};

/**
 * `query` has variables `$first: Int!` and `$after: String`; `pick` takes the connection out of its answer, whose page
 * is `first` long, or null, which is an empty list. What is known is remembered under `key`: the component that uses it must have a React key
 * that changes with it, and it must say what `variables` say.
 */
export function usePages<
  D,
  V extends { first: number; after?: string | null | undefined },
  T extends { id: string },
  A = undefined,
>(
  query: TypedDocumentNode<D, V>,
  variables: Omit<V, "first" | "after">,
  pick: (data: D, first: number) => Connected<T, A> | null | undefined,
  key: string,
): Pages<T, A> {
  const client = useClient();
  const [known, setKnown] = useState<Known<T, A>>(() => recall(`pages ${key}`) ?? NOTHING);
  const [error, setError] = useState<CombinedError>();
  const [isLoading, setLoading] = useState(false);
  const asked = useRef(0); // the number of the last request: answers of others come too late
  const isBusy = useRef(false);
  const failed = useRef<Known<T, A> | null>(undefined); // after what the page comes that failed; null: the first one

  const ask = async (after: Known<T, A> | null) => {
    const number = ++asked.current;
    isBusy.current = true;
    setLoading(true);
    const page = { first: after?.cursor ? NEXT : FIRST, after: after?.cursor ?? null };
    const answer = await client.query(query, { ...variables, ...page } as unknown as V).toPromise();
    if (number !== asked.current) return;
    isBusy.current = false;
    setLoading(false);
    setError(answer.error);
    failed.current = answer.error ? after : undefined;
    if (answer.data !== undefined && !answer.error)
      setKnown(added(after ?? { ...NOTHING, version: known.version + 1 }, pick(answer.data, page.first)));
  };

  const isFull = known.rows.length >= MOST;
  const more = () => {
    if (isBusy.current) return;
    if (failed.current !== undefined) void ask(failed.current);
    else if (known.hasMore && !isFull) void ask(known);
  };
  useEffect(() => remember(`pages ${key}`, known), [key, known]);
  useEffect(() => {
    if (known === NOTHING) more();
    return () => void asked.current++;
  }, []);
  useEffect(() => {
    if (!error?.networkError) return;
    const timer = setTimeout(more, AGAIN_AFTER);
    return () => clearTimeout(timer);
  }, [error]);
  return { ...known, isLoading, error, isFull, more, reload: () => void ask(null) };
}

function added<T extends { id: string }, A>(
  before: Known<T, A>,
  page: Connected<T, A> | null | undefined,
): Known<T, A> {
  if (!page) return { ...before, totalCount: 0, cursor: null, hasMore: false };
  const ids = before.cursor === null ? new Set<string>() : (before.ids as Set<string>);
  const unknown = page.nodes.filter(({ id }) => !ids.has(id)); // a row that moved meanwhile comes a second time
  for (const { id } of unknown) ids.add(id);
  const { hasNextPage, endCursor = null } = page.pageInfo;
  return {
    rows: [...before.rows, ...unknown],
    ids,
    totalCount: page.totalCount,
    about: page.about,
    cursor: endCursor,
    hasMore: hasNextPage,
    version: before.version,
  };
}
