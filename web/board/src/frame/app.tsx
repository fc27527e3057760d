// The frame of every page: navigation, who looks, and whether what stands there is up to date.
import { type ComponentType, useState } from "react";

import { href, useAddress } from "../browser/address.ts";
import { usePlace } from "../browser/place.ts";
import { type Connection, ConnectionProvider, useStatus } from "../api/connection.ts";
import { BoardSessionDocument } from "../gql/graphql.ts";
import { useLive } from "../api/live.ts";
import { Login, logOut } from "./login.tsx";
import { Notices, Outdated } from "./notices.tsx";
import { IntegrityPage } from "../pages/integrity/page.tsx";
import { OverviewPage } from "../pages/overview/page.tsx";
import { QueuesPage } from "../pages/queues/page.tsx";
import { RunPage } from "../pages/run/page.tsx";
import { RunsPage } from "../pages/runs/page.tsx";
import { WorkersPage } from "../pages/workers/page.tsx";
import { DialogNotice } from "../parts/dialog.tsx";
import { Failure } from "../parts/states.tsx";
import { SessionProvider } from "../api/session.tsx";
import { ThemeChoice } from "./theme.tsx";
import { Unbroken } from "./unbroken.tsx";

const PAGES: { path: string; title: string; page: ComponentType }[] = [
  { path: "", title: "Overview", page: OverviewPage },
  { path: "runs", title: "Runs", page: RunsPage },
  { path: "workers", title: "Workers", page: WorkersPage },
  { path: "queues", title: "Queues", page: QueuesPage },
  { path: "integrity", title: "Integrity", page: IntegrityPage },
];

/** The server says in the page which others it has, and whether this browser sent a session cookie. */
const { pages, session: cookie } = document.documentElement.dataset;
const OTHER_PAGES = pages?.split(" ") ?? [];
const CAN_LOG_OUT = cookie !== undefined;

export function App({ connection }: { connection: Connection }) {
  const status = useStatus(connection);
  if (status.state === "loggedOut") return <Login />;
  return (
    <ConnectionProvider value={connection}>
      <Frame connection={connection} />
    </ConnectionProvider>
  );
}

function Frame({ connection }: { connection: Connection }) {
  const status = useStatus(connection);
  const { data: session, error } = useLive(BoardSessionDocument, {});
  const [refusal, setRefusal] = useState("");
  const { path } = useAddress();
  const [first = ""] = path;
  const shown = pageOf(path);
  const place = path.join("/");
  usePlace(place, shown.title);
  const outdated = <Outdated status={status} staleSince={session?.database.staleSince} />;
  return (
    <SessionProvider value={session}>
      <a className="skip" href="#main" onClick={skip}>
        Skip to the content
      </a>
      <header className="top">
        <a className="brand" href={href([])}>
          Merlin
        </a>
        <nav aria-label="Pages">
          <ul>
            {PAGES.map((each) => (
              <li key={each.path}>
                <a href={href(each.path ? [each.path] : [])} aria-current={each.path === first ? "page" : undefined}>
                  {each.title}
                </a>
              </li>
            ))}
          </ul>
        </nav>
        <div className="about">
          {OTHER_PAGES.includes("graphiql") && <a href="graphiql">GraphiQL</a>}
          <ThemeChoice />
          {CAN_LOG_OUT && <button onClick={() => void logOut().then(setRefusal)}>Log out</button>}
        </div>
      </header>
      <Notices refusal={refusal} onClose={() => setRefusal("")}>
        {outdated}
      </Notices>
      <main id="main" className={`page-${shown.name}`} tabIndex={-1}>
        {error && !session ? (
          <Failure error={error} />
        ) : (
          <DialogNotice value={outdated}>
            <Unbroken key={place}>
              <shown.page />
            </Unbroken>
          </DialogNotice>
        )}
      </main>
      <footer>
        {session && (
          <p>
            {session.database.connection} · {session.database.version} · merlin-graphql {session.database.serverVersion}{" "}
            · {session.viewer.roles.at(-1)}
          </p>
        )}
      </footer>
    </SessionProvider>
  );
}

/** What a path leads to; `name` is a part of the class of `main`. */
function pageOf(path: readonly string[]): { name: string; title: string; page: ComponentType } {
  const [first = "", ...rest] = path;
  if (first === "runs" && rest.length === 1) return { name: "run", title: "Run", page: RunPage };
  const known = rest.length === 0 && PAGES.find((each) => each.path === first);
  if (!known) return { name: "none", title: "Not found", page: NotFound };
  return { ...known, name: first || "overview" };
}

function NotFound() {
  return (
    <>
      <h1 tabIndex={-1}>Not found</h1>
      <p>
        The board has no such page. <a href={href([])}>To the overview</a>
      </p>
    </>
  );
}

function skip(event: React.MouseEvent): void {
  event.preventDefault(); // the fragment is the view
  document.getElementById("main")?.focus();
}
