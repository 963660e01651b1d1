// Who may do what. An authenticator looks at a request and the access it needs; it answers with the one who asks, or refuses with a challenge.
import type { IncomingMessage } from "node:http";
import type { Route } from "./route.ts";

export interface Access {
  type: "repository" | "registry";
  name: string;
  actions: string[];
}

export interface Authenticator {
  /** The name of who asks; throws UNAUTHORIZED with a challenge, which asks for `wanted` (by default what is needed). */
  check(request: IncomingMessage, needed: Access[], wanted?: Access[]): Promise<string> | string;
}

/** What a request needs, in the token specification's words. */
export function accessFor(route: Route, method: string, mountFrom?: string): Access[] {
  if (route.kind === "base") return [];
  if (route.kind === "catalog") return [{ type: "registry", name: "catalog", actions: ["*"] }];
  const actions =
    method === "GET" || method === "HEAD" ? ["pull"] : method === "DELETE" && route.kind !== "upload" ? ["delete"] : ["pull", "push"];
  const needed: Access[] = [{ type: "repository", name: route.name, actions }];
  if (mountFrom !== undefined && mountFrom !== route.name) needed.push({ type: "repository", name: mountFrom, actions: ["pull"] });
  return needed;
}
