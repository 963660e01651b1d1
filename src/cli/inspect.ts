// What every inspect command does: fetch the objects as raw text, then print them indented, or by the user's template. An object that can't be
// had is told at the end, after the others are printed.
import type { Client } from "../client/index.ts";
import { type Cli, StatusError } from "./command.ts";
import { daemonMessage } from "./index.ts";
import { indentJson, parseExact } from "./json-text.ts";
import { compile, STRUCT, TemplateError, TemplateSyntaxError } from "./template/index.ts";

/** The raw JSON of an inspect request. */
export async function fetchRaw(client: Client, path: string, query: Record<string, string | boolean | undefined> = {}): Promise<string> {
  return (await client.caller.send("GET", path, { query })).text();
}

export async function inspectAll(
  cli: Cli,
  names: readonly string[],
  format: string,
  fetch: (name: string) => Promise<string>,
  options: { type?: string } = {},
): Promise<number> {
  let template: ((data: unknown) => string) | undefined;
  if (format !== "" && format !== "json") {
    try {
      const compiled = compile(format);
      template = (data) => compiled(data, { missing: missingField });
    } catch (error) {
      if (error instanceof TemplateSyntaxError) throw new StatusError(64, `template parsing error: ${error.message}`);
      throw error;
    }
  }
  const failures: string[] = [];
  const found: string[] = [];
  for (const name of names) {
    try {
      const raw = await fetch(name);
      if (!template) found.push(raw.trim());
      else {
        const data = shape(parseExact(raw), false, options.type);
        found.push(template(data));
      }
    } catch (error) {
      failures.push(error instanceof TemplateError ? `template parsing error: ${error.message}` : daemonMessage(error));
    }
  }
  if (template) cli.out(found.length === 0 ? "\n" : `${found.join("\n")}\n`);
  else if (format === "json") cli.out(`[${found.join(",")}]\n`);
  else cli.out(`${indentJson(`[${found.join(",")}]`)}\n`);
  if (failures.length > 0) throw new StatusError(1, failures.join("\n"));
  return 0;
}

// The engine's answer has no types; in templates a misspelt field is an error, while a missing label is not. These keys hold maps, not structs.
const MAPS = new Set([
  "Labels",
  "Options",
  "Sysctls",
  "PortBindings",
  "Ports",
  "ExposedPorts",
  "Volumes",
  "Networks",
  "Tmpfs",
  "StorageOpt",
  "Annotations",
  "Data",
  "Containers",
  "DriverOpts",
  "Status",
  "AuxiliaryAddresses",
  "Services",
]);
// Lists that are null where they are empty.
const LISTS = new Set(
  "Binds VolumesFrom CapAdd CapDrop Dns DnsOptions DnsSearch ExtraHosts GroupAdd Links SecurityOpt Devices DeviceCgroupRules DeviceRequests Ulimits BlkioWeightDevice BlkioDeviceReadBps BlkioDeviceWriteBps BlkioDeviceReadIOps BlkioDeviceWriteIOps Env Cmd Entrypoint OnBuild Shell ExecIDs Aliases DNSNames LinkLocalIPs MaskedPaths ReadonlyPaths Mounts Config Args Layers RepoTags RepoDigests Peers".split(
    " ",
  ),
);
// Fields that the engine leaves out where they have no value.
const ABSENT: Record<string, unknown> = {
  Health: null,
  Healthcheck: null,
  SizeRw: null,
  SizeRootFs: null,
  Init: null,
  StopTimeout: null,
  StopSignal: "",
  Shell: [],
  MacAddress: "",
  Sysctls: {},
  Tmpfs: {},
  StorageOpt: {},
  Annotations: {},
  Mounts: [],
  Runtime: "",
  ExposedPorts: {},
  NetworkDisabled: false,
  ArgsEscaped: false,
  Volumes: {},
  Parent: "",
  Comment: "",
  DockerVersion: "",
  Author: "",
  Variant: "",
  OsVersion: "",
  Status: {},
  UsageData: null,
  ClusterVolume: null,
  Manifests: [],
  Descriptor: null,
  ImageManifestDescriptor: null,
  ConfigFrom: { Network: "" },
  Peers: [],
  Services: {},
  EnableIPv4: false,
};

/** Marks structs apart from maps, and fills in what Go's zero values are. */
function shape(value: unknown, map: boolean, type?: string): unknown {
  if (Array.isArray(value)) return value.map((item) => shape(item, false));
  if (typeof value !== "object" || value === null) return value;
  const out: Record<string, unknown> = {};
  for (const [key, item] of Object.entries(value)) {
    const isMap = !map && (MAPS.has(key) || (key === "Config" && "Type" in value));
    if (item === null && !map) out[key] = isMap ? {} : LISTS.has(key) ? [] : null;
    else out[key] = shape(item, isMap && typeof item === "object" && !Array.isArray(item));
  }
  if (type) Object.defineProperty(out, STRUCT, { value: type });
  if (map) maps.add(out);
  return out;
}

const maps = new WeakSet<object>();

function missingField(object: object, key: string): unknown {
  if (maps.has(object)) return undefined;
  if (key === "ID" && "Id" in object) return (object as { Id: unknown }).Id;
  if (Object.hasOwn(ABSENT, key)) return ABSENT[key];
  throw new Error(`map has no entry for key ${JSON.stringify(key)}`);
}
