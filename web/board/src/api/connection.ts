// Whether the server is heard: over one websocket, which is opened again whenever it ends.
import {
  type Client as Socket,
  type FormattedExecutionResult,
  type Sink,
  type SubscribePayload,
  createClient,
} from "graphql-ws";
import { createContext, useContext, useSyncExternalStore } from "react";

import { setClock } from "../browser/clock.ts";

/** `loggedOut`: this browser has no session, or has one no more. `failed`: the server does not understand this page. */
export type State = "connecting" | "open" | "lost" | "loggedOut" | "failed";

export interface Status {
  state: State;
  /** When the server was last heard, if it is not heard now; null if it never was. */
  since: Date | null;
  /** Why the server took the connection not, or not any more, in its words; empty if it said nothing. */
  reason: string;
}

const PING_EVERY = 10_000;
const PONG_WITHIN = 5_000;
const OPEN_WITHIN = 10_000; // a handshake that nobody answers is given up
const LONGEST_WAIT = 5_000;
const UNAUTHORIZED = 4401;
const OUTDATED = [4400, 4406, 4409, 4429]; // the server does not understand the page's messages
const REFUSED = [4403, 1013]; // the server says why, and may take the connection later
const FINAL: readonly State[] = ["loggedOut", "failed"];

/** A live query; whether it was ever answered as one. */
interface Followed {
  isLive: boolean;
}

export class Connection {
  private readonly socket: Socket;
  private status: Status = { state: "connecting", since: null, reason: "" };
  private readonly listeners = new Set<() => void>();
  private readonly followed = new Set<Followed>();
  /** Those that the server has not answered since it was connected again: what they say is from before. */
  private readonly awaited = new Set<Followed>();
  private isConnected = false;
  private heard: Date | null = null;
  private pongTimer: ReturnType<typeof setTimeout> | undefined;
  private openTimer: ReturnType<typeof setTimeout> | undefined;
  private hurry = () => {};

  constructor(url: string) {
    this.socket = createClient({
      url,
      lazyCloseTimeout: 3_000, // from one page to the next the connection stays
      keepAlive: PING_EVERY,
      retryAttempts: Infinity,
      // A connection that a browser ends by an error, as of a frozen page, is not the last one; a fault of this page is.
      // (What `terminate` ends with is an Error, too, and has the code of a close.)
      shouldRetry: (reason) => !(reason instanceof Error) || "code" in reason,
      retryWait: (retries) => this.wait(waitOf(retries)),
      on: {
        connecting: () => this.expectOpening(),
        connected: () => this.connected(),
        message: () => (this.heard = new Date()),
        ping: (received) => !received && this.expectPong(),
        pong: (received) => received && clearTimeout(this.pongTimer),
        closed: (event) => this.closed(event as CloseEvent),
      },
    });
    // After a sleep the old socket looks open and tells nothing: it is given up at once.
    const seen = () => document.visibilityState === "visible";
    document.addEventListener("visibilitychange", () => seen() && this.wake());
    document.addEventListener("resume", () => this.wake());
    window.addEventListener("pageshow", ({ persisted }) => persisted && this.wake());
    window.addEventListener("online", () => this.wake());
    window.addEventListener("offline", () => this.drop());
    let last = Date.now();
    setInterval(() => {
      const slept = Math.abs(Date.now() - last) > PING_EVERY; // or the clock was set
      last = Date.now();
      if (slept && seen()) this.wake(); // the timers of a hidden page come seldom
    }, 1_000);
  }

  readonly subscribe = (listener: () => void): (() => void) => {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  };

  readonly current = (): Status => this.status;

  /** Answers of a live query until the returned function is called. */
  follow(request: SubscribePayload, sink: Sink<FormattedExecutionResult>): () => void {
    const one: Followed = { isLive: false };
    this.followed.add(one);
    let timer: ReturnType<typeof setTimeout>;
    let unsubscribe = () => {};
    const begin = () => {
      unsubscribe = this.socket.subscribe(request, {
        next: (answer) => {
          one.isLive ||= "live" in (answer.data ?? {});
          sink.next(answer as FormattedExecutionResult);
          this.arrived(one);
        },
        error: (error) => {
          if (mayPass(error)) {
            timer = setTimeout(begin, waitOf(Infinity));
            return;
          }
          this.forget(one);
          sink.error(error);
        },
        complete: () => {
          this.forget(one);
          sink.complete();
        },
      });
    };
    begin();
    return () => {
      clearTimeout(timer);
      this.forget(one);
      unsubscribe();
    };
  }

  /** Says that a request was refused for want of a session. */
  logOut(): void {
    this.set("loggedOut");
  }

  /** Says that the server does not know this page's operations: it was replaced by another version. */
  fail(): void {
    this.set("failed");
  }

  private connected(): void {
    clearTimeout(this.openTimer);
    this.isConnected = true;
    void setClock();
    for (const one of this.followed) if (one.isLive) this.awaited.add(one);
    this.openUnlessAwaiting();
  }

  private arrived(one: Followed): void {
    if (this.awaited.delete(one)) this.openUnlessAwaiting();
  }

  private forget(one: Followed): void {
    this.followed.delete(one);
    this.arrived(one);
  }

  private openUnlessAwaiting(): void {
    if (this.isConnected && this.awaited.size === 0) this.set("open");
  }

  /** Gives up a socket of which nothing was heard for longer than its pings allow, and opens the next one at once. */
  private wake(): void {
    this.hurry();
    if (this.heard && Math.abs(Date.now() - this.heard.getTime()) > PING_EVERY + PONG_WITHIN) this.drop();
  }

  private drop(): void {
    if (!this.isConnected) return;
    this.set("lost");
    this.socket.terminate();
  }

  private expectPong(): void {
    clearTimeout(this.pongTimer);
    this.pongTimer = setTimeout(() => this.drop(), PONG_WITHIN);
  }

  private expectOpening(): void {
    clearTimeout(this.openTimer);
    this.openTimer = setTimeout(() => this.socket.terminate(), OPEN_WITHIN);
  }

  private closed({ code, reason }: CloseEvent): void {
    clearTimeout(this.pongTimer);
    clearTimeout(this.openTimer);
    this.isConnected = false;
    this.awaited.clear();
    if (code === UNAUTHORIZED) this.set("loggedOut");
    else if (OUTDATED.includes(code)) this.set("failed");
    // 1000 while nothing is followed: this page closed it.
    else if (code !== 1000 || this.followed.size > 0) this.set("lost", REFUSED.includes(code) ? reason : "");
  }

  private set(state: State, reason = ""): void {
    const before = this.status;
    if ((state === before.state && reason === before.reason) || FINAL.includes(before.state)) return;
    // Between a loss and the answers after it, what the page shows stays from before the loss.
    const since = state === "open" ? null : (before.since ?? this.heard);
    this.status = { state, since, reason };
    for (const listener of this.listeners) listener();
  }

  private wait(milliseconds: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, milliseconds);
      this.hurry = () => {
        clearTimeout(timer);
        resolve();
      };
    });
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

/** graphql-ws takes some ends of a connection for the last one that are not, as those of a proxy that fails. */
function mayPass(error: unknown): boolean {
  const { code } = (error ?? {}) as { code?: unknown };
  return typeof code === "number" && code !== UNAUTHORIZED && !OUTDATED.includes(code);
}

/** Milliseconds: the first try comes at once, and not all pages come back at the same moment. */
function waitOf(retries: number): number {
  return Math.min(250 * 2 ** retries, LONGEST_WAIT) * (0.5 + Math.random() / 2);
}
