// Who we are, to a registry: HTTP Basic, or a bearer token from the service that the registry names in its challenge (RFC 6750, and the
// distribution project's token and oauth2 pages). Tokens are cached until shortly before they expire.
import { Failure } from "../lib/errors.ts";
import { registryError } from "./errors.ts";

/** As X-Registry-Auth carries it; identityToken stands in for a password, registryToken is a bearer token as it is. */
export interface Credentials {
  username?: string;
  password?: string;
  identityToken?: string;
  registryToken?: string;
}

export interface Challenge {
  scheme: "basic" | "bearer";
  parameters: Record<string, string>;
}

/** Challenges of a WWW-Authenticate header (RFC 9110, 11.6.1); schemes that are not known are left out. */
export function parseChallenges(header: string): Challenge[] {
  const out: Challenge[] = [];
  const text = header.slice(0, 8192);
  const pattern =
    /([A-Za-z][\w-]*)\s+(?=[\w-]+\s*=)|([A-Za-z][\w-]*)(?=\s*(?:,|$))|([\w-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))|[\s,]+/y;
  let current: Challenge | undefined;
  let at = 0;
  while (at < text.length) {
    pattern.lastIndex = at;
    const match = pattern.exec(text);
    if (!match || match[0] === "") break;
    at = pattern.lastIndex;
    const scheme = (match[1] ?? match[2])?.toLowerCase();
    if (scheme !== undefined) {
      current = undefined;
      if (scheme === "basic" || scheme === "bearer") {
        current = { scheme, parameters: {} };
        out.push(current);
      }
    } else if (match[3] !== undefined && current) {
      current.parameters[match[3].toLowerCase()] = match[4] !== undefined ? match[4].replace(/\\(.)/g, "$1") : (match[5] ?? "");
    }
  }
  return out;
}

/** A request to the token service: no redirect is followed, as it carries the password. */
export type Ask = (
  url: URL,
  init: { method: string; headers: Record<string, string>; body?: string },
) => Promise<{ status: number; body: string }>;

export interface Authorizer {
  /** The header for a request in this scope, as far as it is known without asking; undefined before the first challenge. */
  known(scope: string): string | undefined;
  /** The header that answers this challenge; undefined where there is nothing to answer with. */
  answer(challenges: Challenge[], scope: string): Promise<string | undefined>;
}

interface Token {
  header: string;
  expires: number;
}

const MAX_TOKENS = 500;
const CLIENT = "jubako";

/** `offline` is told the refresh token where the token service gives one, which is then asked for: it serves as identityToken later. */
export function createAuthorizer(
  credentials: Credentials | undefined,
  ask: Ask,
  plainAllowed: boolean,
  offline?: (refreshToken: string) => void,
): Authorizer {
  const tokens = new Map<string, Token>();
  let basic: string | undefined;
  const hasPassword = credentials?.username !== undefined && credentials.username !== "" && credentials.password !== undefined;
  const basicHeader = () => `Basic ${Buffer.from(`${credentials!.username}:${credentials!.password}`).toString("base64")}`;

  const fetchToken = async (parameters: Record<string, string>, scope: string): Promise<string> => {
    let realm: URL;
    try {
      realm = new URL(parameters.realm ?? "");
    } catch {
      throw new Failure("Unauthenticated", "the registry's challenge names no token service");
    }
    const plain = realm.protocol === "http:" && plainAllowed;
    if (realm.protocol !== "https:" && !plain)
      throw new Failure("Unauthenticated", `the registry names the token service ${realm.origin}, which is not https`);
    const service = parameters.service ?? "";
    let reply: { status: number; body: string };
    if (credentials?.identityToken) {
      const form = new URLSearchParams({
        grant_type: "refresh_token",
        service,
        scope,
        client_id: CLIENT,
        refresh_token: credentials.identityToken,
      });
      reply = await ask(realm, { method: "POST", headers: { "content-type": "application/x-www-form-urlencoded" }, body: form.toString() });
    } else {
      if (service) realm.searchParams.set("service", service);
      for (const one of scope.split(" ").filter(Boolean)) realm.searchParams.append("scope", one);
      if (hasPassword) realm.searchParams.set("account", credentials.username!);
      if (offline) {
        realm.searchParams.set("offline_token", "true");
        realm.searchParams.set("client_id", CLIENT);
      }
      reply = await ask(realm, { method: "GET", headers: hasPassword ? { authorization: basicHeader() } : {} });
    }
    if (reply.status !== 200) throw registryError(reply.status, reply.body, `GET ${realm.origin}${realm.pathname}`);
    const json = parse(reply.body);
    const token = json.token ?? json.access_token;
    if (typeof json.refresh_token === "string" && json.refresh_token !== "") offline?.(json.refresh_token);
    if (typeof token !== "string" || !/^[\x21-\x7e]+$/.test(token))
      throw new Failure("Unauthenticated", `the token service ${realm.origin} gave no token`);
    const seconds = typeof json.expires_in === "number" && json.expires_in > 60 ? json.expires_in : 60;
    if (tokens.size >= MAX_TOKENS) tokens.clear();
    const header = `Bearer ${token}`;
    tokens.set(scope, { header, expires: Date.now() + (seconds - 10) * 1000 });
    return header;
  };

  return {
    known(scope) {
      if (credentials?.registryToken) return `Bearer ${credentials.registryToken}`;
      const token = tokens.get(scope);
      if (token && token.expires > Date.now()) return token.header;
      return basic;
    },
    async answer(challenges, scope) {
      const bearer = challenges.find((challenge) => challenge.scheme === "bearer");
      if (bearer) return fetchToken(bearer.parameters, scope || (bearer.parameters.scope ?? ""));
      if (challenges.some((challenge) => challenge.scheme === "basic") && hasPassword) {
        basic = basicHeader();
        return basic;
      }
      return undefined;
    },
  };
}

function parse(body: string): Record<string, unknown> {
  try {
    const json: unknown = JSON.parse(body);
    if (typeof json === "object" && json !== null) return json as Record<string, unknown>;
  } catch {
    // reported by the caller as a missing token
  }
  return {};
}
