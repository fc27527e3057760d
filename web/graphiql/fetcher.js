// Asks the address `graphql` beside the page. The session is a cookie that no script sees; whoever has none is sent to log in.
import { createGraphiQLFetcher } from "@graphiql/toolkit";

const url = new URL("graphql", location.href).href;

export function makeFetcher(onLoggedOut) {
  const ask = async (address, init) => {
    const response = await fetch(address, { ...init, credentials: "same-origin" });
    if (response.status === 401) onLoggedOut();
    return response;
  };
  // Headers of the editor, an Authorization say, are the payload of connection_init: a websocket has none of its own.
  const toolkit = createGraphiQLFetcher({
    url,
    subscriptionUrl: url.replace(/^http/, "ws"),
    fetch: ask,
    enableIncrementalDelivery: false,
  });
  // A websocket that is refused ends with an error in the editor: a request also leads to the login, and names the status.
  const refusal = async (headers) => {
    const body = '{"query":"{ __typename }"}';
    const response = await ask(url, { method: "POST", headers: { "content-type": "application/json", ...headers }, body });
    return response.status === 401 ? response.json() : null;
  };
  return async (params, options) => {
    const result = await toolkit(params, options);
    if (!(Symbol.asyncIterator in result)) return result;
    const refused = await refusal(options?.headers);
    if (refused !== null) await result.return();
    return refused ?? result;
  };
}
