// What stands where there is nothing to show: not yet, not at all, not allowed.
import type { CombinedError } from "@urql/core";
import type { ReactNode } from "react";

import { OUTDATED } from "../api/errors.ts";

/** Reserves the height of what comes, so that nothing jumps. */
export function Loading({ rows = 3 }: { rows?: number }) {
  return (
    <div className="loading" role="status" aria-label="Loading">
      {Array.from({ length: rows }, (_, row) => (
        <div key={row} className="bone" />
      ))}
    </div>
  );
}

/** `still`: of the same height as the list that may stand in its place. */
export function Empty({ still = false, children }: { still?: boolean; children: ReactNode }) {
  return <p className={still ? "empty still" : "empty"}>{children}</p>;
}

/** An error of the server, in its words, with its code; it says what to do. */
export function Failure({ error, retry }: { error: CombinedError; retry?: () => void }) {
  return (
    <div className="failure" role="alert">
      {told(error).map(({ message, code }) => (
        <p key={message}>
          {message} {code && <code>{code}</code>}
        </p>
      ))}
      {retry && <button onClick={retry}>Try again</button>}
    </div>
  );
}

export function told(error: CombinedError): { message: string; code: string | undefined }[] {
  if (error.networkError) {
    const status = (error.response as Response | undefined)?.status;
    if (error.networkError.name === "TimeoutError") {
      return [{ message: "The server did not answer in time. Look whether it did what was asked.", code: undefined }];
    }
    return [
      { message: status ? `The server answered with ${status}.` : "The server can't be reached.", code: undefined },
    ];
  }
  return error.graphQLErrors.map(({ message, extensions }) => {
    const code = typeof extensions.code === "string" ? extensions.code : undefined;
    if (code && OUTDATED.has(code))
      return { message: "The server has another version than this page: load it anew.", code };
    return { message, code };
  });
}
