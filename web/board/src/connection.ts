// Whether the server is heard: over one websocket, which is opened again whenever it ends.
import { type Client as Socket, createClient } from "graphql-ws";
import { createContext, useContext, useSyncExternalStore } from "react";

/** `loggedOut`: this browser has no session, or has one no more. `failed`: the server will never take this page's messages. */
export type State = "connecting" | "open" | "lost" | "loggedOut" | "failed";

export interface Status {
  state: State;
  /** When the server was last heard, if it is not heard now; null if it never was. */
  since: Date | null;
}

const PING_EVERY = 10_000;
const PONG_WITHIN = 5_000;
const LONGEST_WAIT = 5_000;
const UNAUTHORIZED = 4401;
const FATAL = [4400, 4406, 4409, 4429];
const SILENT = 4408; // a code after which graphql-ws connects again

export class Connection {
  readonly socket: Socket;
  private status: Status = { state: "connecting", since: null };
  private readonly listeners = new Set<() => void>();
  private heard: Date | null = null;
  private watched: WebSocket | null = null;
  private pongTimer: ReturnType<typeof setTimeout> | undefined;

  constructor(url: string) {
    this.socket = createClient({
      url,
      lazyCloseTimeout: 3_000, // from one page to the next the connection stays
      keepAlive: PING_EVERY,
      retryAttempts: Infinity,
      retryWait: (retries) => new Promise((resolve) => setTimeout(resolve, waitOf(retries))),
      on: {
        opened: (socket) => (this.watched = socket as WebSocket),
        connected: () => this.set("open"),
        message: () => (this.heard = new Date()),
        ping: (received) => !received && this.expectPong(),
        pong: (received) => received && clearTimeout(this.pongTimer),
        closed: (event) => this.closed((event as CloseEvent).code),
      },
    });
    // After a sleep the old socket looks open and tells nothing: it is given up at once.
    document.addEventListener("visibilitychange", () => this.wake());
    window.addEventListener("online", () => this.wake());
    window.addEventListener("offline", () => this.drop());
    let last = Date.now();
    setInterval(() => {
      const slept = Date.now() - last > PING_EVERY;
      last = Date.now();
      if (slept) this.wake();
    }, 1_000);
  }

  readonly subscribe = (listener: () => void): (() => void) => {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  };

  readonly current = (): Status => this.status;

  /** Says that a request was refused for want of a session. */
  logOut(): void {
    this.set("loggedOut");
  }

  /** Gives up a socket of which nothing was heard for longer than its pings allow. */
  private wake(): void {
    if (document.visibilityState !== "visible" || this.heard === null) return;
    if (Date.now() - this.heard.getTime() > PING_EVERY + PONG_WITHIN) this.drop();
  }

  private drop(): void {
    if (this.status.state === "open") this.set("lost");
    if (this.watched?.readyState === WebSocket.OPEN) this.socket.terminate();
  }

  private expectPong(): void {
    clearTimeout(this.pongTimer);
    const socket = this.watched;
    this.pongTimer = setTimeout(() => {
      if (socket?.readyState === WebSocket.OPEN) {
        this.set("lost");
        socket.close(SILENT, "no pong");
        this.socket.terminate();
      }
    }, PONG_WITHIN);
  }

  private closed(code: number): void {
    clearTimeout(this.pongTimer);
    if (code === UNAUTHORIZED) this.set("loggedOut");
    else if (FATAL.includes(code)) this.set("failed");
    else if (code !== 1000) this.set("lost"); // 1000: this page closed it
  }

  private set(state: State): void {
    if (state === this.status.state || this.status.state === "loggedOut") return;
    this.status = { state, since: state === "open" ? null : this.heard };
    for (const listener of this.listeners) listener();
  }
}

const Context = createContext<Connection | null>(null);

export const ConnectionProvider = Context.Provider;

/** False from a loss of the connection until it is back: who appends to what was sent before begins anew then. */
export function useIsOpen(): boolean {
  const connection = useContext(Context)!;
  return useStatus(connection).state === "open";
}

export function useStatus(connection: Connection): Status {
  return useSyncExternalStore(connection.subscribe, connection.current);
}

/** Milliseconds: the first try comes at once, and not all pages come back at the same moment. */
function waitOf(retries: number): number {
  return Math.min(250 * 2 ** retries, LONGEST_WAIT) * (0.5 + Math.random() / 2);
}
