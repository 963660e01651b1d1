// Credentials for registries: config.json's auths, and the helpers docker-credential-* (https://github.com/docker/docker-credential-helpers).
import { spawn } from "node:child_process";
import type { ConfigFile } from "../client/index.ts";

export interface Credentials {
  username?: string;
  password?: string;
  identitytoken?: string;
  registrytoken?: string;
  serveraddress: string;
}

export const INDEX_SERVER = "https://index.docker.io/v1/";

/** The key in config.json for a registry's host name. */
export function serverOf(domain: string): string {
  return domain === "docker.io" || domain === "index.docker.io" ? INDEX_SERVER : domain;
}

/** "https://host/v1/" → "host". */
export function hostOf(server: string): string {
  return server.replace(/^https?:\/\//, "").replace(/\/.*$/, "");
}

function helperFor(config: ConfigFile, server: string): string | undefined {
  return config.credHelpers?.[server] ?? config.credHelpers?.[hostOf(server)] ?? (config.credsStore || undefined);
}

/** Undefined where none are known. */
export async function getCredentials(config: ConfigFile, server: string): Promise<Credentials | undefined> {
  const helper = helperFor(config, server);
  if (helper) {
    try {
      const found = JSON.parse(await callHelper(helper, "get", server)) as { Username: string; Secret: string };
      if (found.Username === "<token>") return { identitytoken: found.Secret, serveraddress: server };
      return { username: found.Username, password: found.Secret, serveraddress: server };
    } catch (error) {
      if (/credentials not found/i.test((error as Error).message)) return undefined;
      throw error;
    }
  }
  const key = config.auths?.[server] ? server : Object.keys(config.auths ?? {}).find((key) => hostOf(key) === hostOf(server));
  const entry = key === undefined ? undefined : config.auths?.[key];
  if (key === undefined || !entry) return undefined;
  const out: Credentials = { serveraddress: key };
  if (entry.auth) {
    const decoded = Buffer.from(entry.auth, "base64").toString("utf8");
    const colon = decoded.indexOf(":");
    if (colon < 0) throw new Error(`invalid auth configuration file: no colon in auth of ${server}`);
    out.username = decoded.slice(0, colon);
    out.password = decoded.slice(colon + 1).replace(/\0+$/, "");
  } else {
    if (entry.username) out.username = entry.username;
    if (entry.password) out.password = entry.password;
  }
  if (entry.identitytoken) {
    out.identitytoken = entry.identitytoken;
    delete out.password;
  }
  if (entry.registrytoken) out.registrytoken = entry.registrytoken;
  return out.username || out.identitytoken || out.registrytoken ? out : undefined;
}

/** Changes `config` or tells the helper; true where config.json must be written. */
export async function storeCredentials(config: ConfigFile, credentials: Credentials): Promise<boolean> {
  const { serveraddress: server, username = "", password = "", identitytoken } = credentials;
  const helper = helperFor(config, server);
  if (helper) {
    await callHelper(
      helper,
      "store",
      JSON.stringify({ ServerURL: server, Username: identitytoken ? "<token>" : username, Secret: identitytoken ?? password }),
    );
    config.auths = { ...config.auths, [server]: {} };
    return true;
  }
  const auth = Buffer.from(`${username}:${identitytoken ? "" : password}`).toString("base64");
  config.auths = { ...config.auths, [server]: identitytoken ? { auth, identitytoken } : { auth } };
  return true;
}

export async function eraseCredentials(config: ConfigFile, server: string): Promise<void> {
  const host = hostOf(server);
  // whatever form of the name it was stored under
  const names = server === INDEX_SERVER ? [server] : [server, host, `http://${host}`, `https://${host}`];
  for (const name of names) {
    const helper = helperFor(config, name);
    if (helper) await callHelper(helper, "erase", name);
  }
  for (const key of Object.keys(config.auths ?? {})) if (key === server || hostOf(key) === hostOf(server)) delete config.auths![key];
}

function callHelper(helper: string, action: string, input: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(`docker-credential-${helper}`, [action], { stdio: ["pipe", "pipe", "inherit"] });
    let out = "";
    child.stdout.on("data", (chunk: Buffer) => {
      out += chunk.toString();
    });
    child.on("error", (error) => reject(new Error(`error getting credentials - err: ${error.message}, out: \`\``)));
    child.on("close", (code) =>
      code === 0 ? resolve(out) : reject(new Error(`error getting credentials - err: exit status ${code}, out: \`${out.trim()}\``)),
    );
    child.stdin.on("error", () => {});
    child.stdin.end(input);
  });
}

/** The X-Registry-Auth header; undefined where there is nothing to say. */
export async function registryAuth(config: ConfigFile, domain: string): Promise<string | undefined> {
  if (!config.auths && !config.credsStore && !config.credHelpers) return undefined;
  const credentials = await getCredentials(config, serverOf(domain));
  if (!credentials) return undefined;
  return Buffer.from(JSON.stringify(credentials)).toString("base64").replaceAll("+", "-").replaceAll("/", "_");
}
