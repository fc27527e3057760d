// The entry: one connection and one client for as long as the page is open.
import { createRoot } from "react-dom/client";
import { Provider } from "urql";

import { App } from "./frame/app.tsx";
import { GRAPHQL, makeClient } from "./api/client.ts";
import { Connection } from "./api/connection.ts";
import { keepFocus } from "./browser/focus.ts";
import { applyTheme } from "./frame/theme.tsx";

import "./styles/base.css";
import "./styles/frame.css";
import "./styles/parts.css";

applyTheme();
keepFocus();
const connection = new Connection(GRAPHQL.replace(/^http/, "ws"));
createRoot(document.getElementById("board")!).render(
  <Provider value={makeClient(connection)}>
    <App connection={connection} />
  </Provider>,
);
