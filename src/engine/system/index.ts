// /info, /system/df and /auth: the engine as a whole.
import type { AuthConfig } from "../../api/types.ts";
import { isKind, messageOf, unauthenticated, unknown } from "../../lib/errors.ts";
import type { Engine } from "../context.ts";
import type { Call, Route } from "../route.ts";
import { systemInfo } from "./info.ts";
import { diskUsage } from "./usage.ts";

/** "https://index.docker.io/v1/" and "" are Docker Hub; else the host of the address. */
function domainOf(address: string | undefined): string {
  const host = (address ?? "").replace(/^https?:\/\//, "").replace(/\/.*$/, "");
  return host === "" || host === "index.docker.io" || host === "registry-1.docker.io" ? "docker.io" : host;
}

async function login(engine: Engine, call: Call): Promise<{ json: { Status: string; IdentityToken: string } }> {
  const body = ((await call.json()) ?? {}) as AuthConfig & { identitytoken?: string };
  const { checkLogin } = await import("../../distribution/index.ts");
  const credentials = body.identitytoken
    ? { identityToken: body.identitytoken }
    : { username: body.username ?? "", password: body.password ?? "" };
  const registries = { insecure: engine.config.insecureRegistries, mirrors: [], proxy: engine.config.proxies };
  let token: string | undefined;
  try {
    token = await checkLogin(domainOf(body.serveraddress), registries, credentials);
  } catch (error) {
    if (isKind(error, "Unauthenticated") || isKind(error, "PermissionDenied")) throw unauthenticated(messageOf(error), error);
    throw unknown(messageOf(error), error);
  }
  return { json: { Status: "Login Succeeded", IdentityToken: token ?? "" } };
}

export function routes(engine: Engine): Route[] {
  return [
    { method: "GET", path: "/info", handle: async () => ({ json: await systemInfo(engine, engine.events.listeners()) }) },
    { method: "GET", path: "/system/df", handle: async (call) => ({ json: await diskUsage(engine, call) }) },
    { method: "POST", path: "/auth", handle: (call) => login(engine, call) },
  ];
}
