// The frame of every page: navigation, who looks, and whether what stands there is up to date.
import { type ComponentType, useEffect, useRef, useState } from "react";

import { href, useAddress } from "../browser/address.ts";
import { type Connection, ConnectionProvider, useStatus } from "../api/connection.ts";
import { BoardSessionDocument } from "../gql/graphql.ts";
import { useLive } from "../api/live.ts";
import { Login, logOut } from "./login.tsx";
import { Notices } from "./notices.tsx";
import { IntegrityPage } from "../pages/integrity/page.tsx";
import { OverviewPage } from "../pages/overview/page.tsx";
import { QueuesPage } from "../pages/queues/page.tsx";
import { RunPage } from "../pages/run/page.tsx";
import { RunsPage } from "../pages/runs/page.tsx";
import { WorkersPage } from "../pages/workers/page.tsx";
import { Failure } from "../parts/states.tsx";
import { SessionProvider } from "../api/session.tsx";
import { ThemeChoice } from "./theme.tsx";

const PAGES: { path: string; title: string; page: ComponentType }[] = [
  { path: "", title: "Overview", page: OverviewPage },
  { path: "runs", title: "Runs", page: RunsPage },
  { path: "workers", title: "Workers", page: WorkersPage },
  { path: "queues", title: "Queues", page: QueuesPage },
  { path: "integrity", title: "Integrity", page: IntegrityPage },
];

/** The server says in the page which others it has. */
const OTHER_PAGES = document.documentElement.dataset.pages?.split(" ") ?? [];

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
  const [first = "", id] = path;
  const known = PAGES.find((each) => each.path === first);
  const Page = first === "runs" && id ? RunPage : known?.page;
  const title = first === "runs" && id ? "Run" : (known?.title ?? "Not found");
  useFocusOnHeading(path.join("/"), title);
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
          <button onClick={() => void logOut().then(setRefusal)}>Log out</button>
        </div>
      </header>
      <Notices
        status={status}
        staleSince={session?.database.staleSince}
        refusal={refusal}
        onClose={() => setRefusal("")}
      />
      <main id="main" className={`page-${known ? (id ? "run" : first || "overview") : "none"}`} tabIndex={-1}>
        {error && !session ? (
          <Failure error={error} />
        ) : Page ? (
          <Page key={path.join("/")} />
        ) : (
          <>
            <h1 tabIndex={-1}>Not found</h1>
            <p>
              The board has no such page. <a href={href([])}>To the overview</a>
            </p>
          </>
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

/** After a change of the page, but not at the first one: so a reader of screens is told where it is. */
function useFocusOnHeading(place: string, title: string): void {
  const shown = useRef(place);
  useEffect(() => {
    document.title = `${title}: Merlin board`;
    if (shown.current === place) return;
    shown.current = place;
    window.scrollTo(0, 0);
    document.querySelector<HTMLElement>("main h1")?.focus({ preventScroll: true });
  }, [place, title]);
}

function skip(event: React.MouseEvent): void {
  event.preventDefault(); // the fragment is the view
  document.getElementById("main")?.focus();
}
