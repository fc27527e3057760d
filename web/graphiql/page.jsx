// The page: GraphiQL with the saved operations as tabs, and above it a way to log in where the server wants that.
import { explorerPlugin } from "@graphiql/plugin-explorer";
import { GraphiQL } from "graphiql";
import { useMemo, useState } from "react";
import { createRoot } from "react-dom/client";

import { BoardLink } from "./board_link.jsx";
import { makeFetcher } from "./fetcher.js";
import { Login, Logout } from "./login.jsx";
import { withoutHeaders } from "./storage.js";
import { WrapLines } from "./wrap.jsx";

import "graphiql/style.css";
import "@graphiql/plugin-explorer/style.css";
import "./page.css";

const plugins = [explorerPlugin()];
const storage = withoutHeaders(localStorage);

function Page() {
  const [loggedOut, setLoggedOut] = useState(false);
  const fetcher = useMemo(() => makeFetcher(() => setLoggedOut(true)), []);
  return (
    <>
      {loggedOut && <Login />}
      <GraphiQL
        fetcher={fetcher}
        plugins={plugins}
        defaultTabs={TABS}
        storage={storage}
        shouldPersistHeaders={false}
        inputValueDeprecation
        schemaDescription
      >
        <GraphiQL.Logo>
          <h1>
            Graph<em>i</em>QL
          </h1>
          <BoardLink />
          {!loggedOut && <Logout />}
        </GraphiQL.Logo>
        <WrapLines />
      </GraphiQL>
    </>
  );
}

createRoot(document.getElementById("page")).render(<Page />);
