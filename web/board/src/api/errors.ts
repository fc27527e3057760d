// Errors that no later try can mend.
import type { CombinedError } from "@urql/core";

/** Codes of the server for an operation that it does not know. */
export const OUTDATED = new Set(["PERSISTED_QUERY_NOT_FOUND", "UNTRUSTED_DOCUMENT"]);

/** Whether the server does not know an operation of this page: it has another version. */
export function isOutdated(error: CombinedError): boolean {
  return error.graphQLErrors.some(({ extensions }) => OUTDATED.has(String(extensions.code)));
}
