// Who looks: what a role may not do is not offered.
import { createContext, useContext } from "react";

import type { BoardSessionSubscription, Role } from "../gql/graphql.ts";

export type Session = BoardSessionSubscription["live"];

const Context = createContext<Session | undefined>(undefined);

export const SessionProvider = Context.Provider;

/** Undefined until the server has said it. */
export function useSession(): Session | undefined {
  return useContext(Context);
}

export function useMay(role: Role): boolean {
  return useSession()?.viewer.roles.includes(role) ?? false;
}
