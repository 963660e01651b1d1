// What the flags of `build` mean in the attributes that the Dockerfile frontend reads.
import { loadLayouts } from "../../client/index.ts";
import type { Cli } from "../command.ts";
import type { Values } from "../flags.ts";
import type { BuildContext } from "./context.ts";
import type { flags } from "./flags.ts";
import { type NamedContext, parseBuildContext, parseUlimit } from "./parse.ts";

export type BuildFlags = Values<typeof flags>;

/** name=value; a name alone takes the value of the environment, and is left out where that has none. */
export function buildArgs(cli: Pick<Cli, "env" | "config">, list: readonly string[]): Map<string, string> {
  const out = new Map<string, string>();
  const proxies = cli.config.proxies?.[cli.env.DOCKER_HOST ?? ""] ?? cli.config.proxies?.default ?? {};
  for (const [key, name] of [
    ["httpProxy", "HTTP_PROXY"],
    ["httpsProxy", "HTTPS_PROXY"],
    ["ftpProxy", "FTP_PROXY"],
    ["noProxy", "NO_PROXY"],
    ["allProxy", "ALL_PROXY"],
  ] as const)
    if (proxies[key]) for (const spelling of [name, name.toLowerCase()]) out.set(spelling, proxies[key]);
  for (const entry of list) {
    const equals = entry.indexOf("=");
    const value = equals < 0 ? cli.env[entry] : entry.slice(equals + 1);
    if (value !== undefined) out.set(equals < 0 ? entry : entry.slice(0, equals), value);
  }
  return out;
}

export function pairs(list: readonly string[]): Record<string, string> {
  return Object.fromEntries(
    list.map((entry) => {
      const equals = entry.indexOf("=");
      return equals < 0 ? [entry, ""] : [entry.slice(0, equals), entry.slice(equals + 1)];
    }),
  );
}

export function extraHost(text: string): string {
  const match = /^([^=:]+)[=:](.+)$/.exec(text);
  if (!match) throw new Error(`bad format for add-host: ${JSON.stringify(text)}`);
  return `${match[1]}=${match[2]!.replace(/^\[(.*)\]$/, "$1")}`;
}

/** The name of an image in a layout, as the build is told it. */
async function lendLayout({ directory, tag, digest }: NonNullable<NamedContext["layout"]>, layouts: Map<string, string>): Promise<string> {
  const { digestIn } = await loadLayouts();
  const found = digest ?? digestIn(directory, tag);
  if (found === undefined) throw new Error(`there is no image ${tag} in the OCI layout ${directory}`);
  const name = `layout${layouts.size}`;
  layouts.set(`oci:${name}`, directory);
  return `oci-layout://${name}@${found}`;
}

const attest = (value: string, kind: string): [string, string] => {
  if (value === "true" || value === "1") return [`attest:${kind}`, ""];
  if (value === "false" || value === "0") return [`attest:${kind}`, "disabled=true"];
  return [`attest:${kind}`, value];
};

/** What the session lends, by name: directories, and OCI layouts. */
export interface Lent {
  attrs: Record<string, string>;
  directories: Map<string, string>;
  layouts: Map<string, string>;
}

export async function attributes(cli: Cli, given: BuildFlags, context: BuildContext): Promise<Lent> {
  const attrs: Record<string, string> = {};
  const directories = new Map<string, string>();
  const layouts = new Map<string, string>();
  attrs.filename = context.dockerfile.name;
  if (context.directory !== undefined) directories.set("context", context.directory);
  else attrs.context = context.remote!;
  if (context.dockerfile.directory !== undefined) {
    directories.set("dockerfile", context.dockerfile.directory);
    if (context.remote !== undefined) attrs.dockerfilekey = "dockerfile";
  }
  if (given.target) attrs.target = given.target;
  for (const [name, value] of buildArgs(cli, given["build-arg"])) attrs[`build-arg:${name}`] = value;
  for (const [name, value] of Object.entries(pairs(given.label))) attrs[`label:${name}`] = value;
  if (given.platform.length > 0) attrs.platform = given.platform.join(",");
  if (given["no-cache"]) attrs["no-cache"] = "";
  else if (given["no-cache-filter"].length > 0) attrs["no-cache"] = given["no-cache-filter"].join(",");
  if (given.pull) attrs["image-resolve-mode"] = "pull";
  if (given["add-host"].length > 0) attrs["add-hosts"] = given["add-host"].map(extraHost).join(",");
  if (given.network && given.network !== "default") attrs["force-network-mode"] = given.network;
  if (given["shm-size"] > 0) attrs["shm-size"] = String(given["shm-size"]);
  if (given.ulimit.length > 0) attrs.ulimit = given.ulimit.map(parseUlimit).join(",");
  if (given["cgroup-parent"]) attrs["cgroup-parent"] = given["cgroup-parent"];
  for (const text of given["build-context"]) {
    const { name, value, directory, layout } = parseBuildContext(text);
    attrs[`context:${name}`] = layout ? await lendLayout(layout, layouts) : value;
    if (directory !== undefined) directories.set(name, directory);
  }
  for (const text of given.attest) {
    const { type, ...rest } = Object.fromEntries(
      text.split(",").map((field) => [field.split("=")[0]!, field.slice(field.indexOf("=") + 1)]),
    );
    if (!type) throw new Error("attestation type not specified");
    attrs[`attest:${type}`] = Object.entries(rest)
      .map(([name, value]) => `${name}=${value}`)
      .join(",");
  }
  for (const kind of ["provenance", "sbom"] as const) {
    if (!given[kind]) continue;
    const [name, value] = attest(given[kind], kind);
    attrs[name] = value;
  }
  if (given.explain) attrs["jubako.explain"] = "true";
  return { attrs, directories, layouts };
}
