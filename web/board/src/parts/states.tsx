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

interface Failed {
  error: CombinedError;
  retry?: () => void;
  /** Of a change: it may have been done although no answer came. */
  isChange?: boolean;
}

/** An error of the server, in its words, with its code; it says what to do. */
export function Failure({ error, retry, isChange = false }: Failed) {
  return (
    <div className="failure" role="alert">
      {isChange && isUnsure(error) && <p>It is not known whether this was done.</p>}
      {told(error).map(({ message, code }) => (
        <p key={message}>
          {message} {code && <code>{code}</code>}
        </p>
      ))}
      {retry && <button onClick={retry}>Try again</button>}
    </div>
  );
}

/** Whether a change may have been done although it failed: no answer came, or one of a proxy or of a server that ended. */
export function isUnsure(error: CombinedError): boolean {
  if (!error.networkError) return false;
  const status = (error.response as Response | undefined)?.status;
  return status === undefined || status < 400 || status >= 500;
}

export function told(error: CombinedError): { message: string; code: string | undefined }[] {
  if (error.networkError) {
    const status = (error.response as Response | undefined)?.status;
    if (error.networkError.name === "TimeoutError") {
      return [{ message: "The server did not answer in time.", code: undefined }];
    }
    if (status === undefined) return [{ message: "The server can't be reached.", code: undefined }];
    const message =
      status < 400
        ? "Something else than the server answered: look which proxies are on the way."
        : `The server answered with ${status}.`;
    return [{ message, code: undefined }];
  }
  return error.graphQLErrors.map(({ message, extensions }) => {
    const code = typeof extensions.code === "string" ? extensions.code : undefined;
    if (code && OUTDATED.has(code))
      return { message: "The server has another version than this page: load it anew.", code };
    return { message, code };
  });
}
