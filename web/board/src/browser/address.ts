// The view that is shown, kept in the fragment of the page's address: `#/runs?status=FAILED`.
// A fragment is never sent: no proxy logs what somebody looks for, and the page works behind any path prefix.
import { useSyncExternalStore } from "react";

export interface Address {
  /** The parts of the path: `["runs", id]`. */
  path: string[];
  params: URLSearchParams;
}

export type Params = Record<string, string | null | undefined>;

/** The address of a fragment, `#` included; what is no path is the first page. */
export function parse(fragment: string): Address {
  const [path = "", ...queries] = fragment.replace(/^#/, "").split("?");
  const query = queries.join("?"); // a value that somebody typed may have another one
  return { path: path.split("/").filter(Boolean).map(decoded), params: new URLSearchParams(query) };
}

/** The fragment of a view; parameters without a value are left out. */
export function href(path: string[], params: Params = {}): string {
  const given = Object.entries(params).filter((entry): entry is [string, string] => Boolean(entry[1]));
  const query = new URLSearchParams(given).toString();
  return `#/${path.map(encodeURIComponent).join("/")}${query && `?${query}`}`;
}

export function useAddress(): Address {
  return parse(useSyncExternalStore(listen, () => location.hash));
}

/** Shows another view. `replace`: the button back does not return to the present one. */
export function go(fragment: string, { replace = false } = {}): void {
  if (fragment === (location.hash || "#/")) return;
  if (replace)
    history.replaceState(history.state, "", fragment); // it is still the same place
  else history.pushState(null, "", fragment);
  window.dispatchEvent(new HashChangeEvent("hashchange")); // the history's functions tell nobody
}

/** Changes some parameters of the present view, and keeps the others. */
export function change(params: Params): void {
  const now = parse(location.hash);
  go(href(now.path, { ...Object.fromEntries(now.params), ...params }), { replace: true });
}

function listen(onChange: () => void): () => void {
  window.addEventListener("hashchange", onChange);
  window.addEventListener("popstate", onChange);
  return () => {
    window.removeEventListener("hashchange", onChange);
    window.removeEventListener("popstate", onChange);
  };
}

function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}
