// RUN as an operation: the command, its here-documents, mounts, network and limits.
import { posix } from "node:path";
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { ExecOpSchema, MountSchema } from "../../gen/pb_pb.ts";
import { CacheSharingOpt, MountType, NetMode, SecurityMode } from "../../gen/pb_pb.ts";
import { parseBool } from "../../lib/parse-bool.ts";
import { DockerfileError, expandShown, type Of, type Range, type RunMount } from "../dockerfile/index.ts";
import { argsOf } from "./config.ts";
import type { Meta, Node, Output } from "./nodes.ts";
import { type Expander, envOf, PROXIES, type StageState } from "./state.ts";

type MountInit = MessageInitShape<typeof MountSchema>;

/** What all RUN steps of a build share. */
export interface RunSettings {
  network: "default" | "none" | "host";
  hostname: string;
  extraHosts: { Host: string; IP: string }[];
  ulimits: { Name: string; Soft: bigint; Hard: bigint }[];
  cgroupParent: string;
  /** Bytes; 0: the engine's choice. */
  shmSize: number;
  /** Before the names of mount caches. */
  cacheNamespace: string;
}

/** What the Dockerfile asks of its client: told by `--call outline`. */
export interface Wants {
  secrets: { name: string; required: boolean; range: Range }[];
  ssh: { name: string; required: boolean; range: Range }[];
  caches: { id: string; range: Range }[];
}

interface Options {
  state: StageState;
  instruction: Of<"RUN">;
  expand: Expander;
  settings: RunSettings;
  buildArgs: ReadonlyMap<string, string>;
  escapeChar: string;
  wants: Wants;
  meta(text: string, shown?: string): Meta;
  /** The tree of a stage, a context or an image that `from` names. */
  tree(ref: string): Promise<Output | undefined>;
  /** The build context, of which this path is wanted. */
  context(path: string): Output | undefined;
}

const SIZES: Record<string, number> = { "": 1, b: 1, k: 2 ** 10, m: 2 ** 20, g: 2 ** 30, t: 2 ** 40 };

function sizeOf(text: string): number | undefined {
  const match = /^(\d{1,15})([bkmgt]?)i?b?$/i.exec(text);
  return match ? Number(match[1]) * SIZES[match[2]!.toLowerCase()]! : undefined;
}

const SHARING: Record<string, CacheSharingOpt> = {
  shared: CacheSharingOpt.SHARED,
  private: CacheSharingOpt.PRIVATE,
  locked: CacheSharingOpt.LOCKED,
};

function internal(name: string, options: Options): Meta {
  return { name: `[internal] ${name}`, range: options.instruction.range };
}

/** A tree with one file in it. */
function scratchFile(path: string, mode: number, content: string, options: Options): Output {
  const action = { case: "mkfile" as const, value: { path, mode, data: Buffer.from(content), timestamp: -1n } };
  return {
    node: {
      op: { case: "file", value: { actions: [{ input: -1n, secondaryInput: -1n, output: 0n, action }] } },
      inputs: [],
      platform: options.state.platform,
      meta: internal("preparing inline document", options),
    },
    index: 0,
  };
}

function scratchDirectory(mode: number, uid: number, gid: number, options: Options): Output {
  const owner = { user: { user: { case: "byID" as const, value: uid } }, group: { user: { case: "byID" as const, value: gid } } };
  const action = { case: "mkdir" as const, value: { path: "/cache", mode, owner, timestamp: -1n } };
  return {
    node: {
      op: { case: "file", value: { actions: [{ input: -1n, secondaryInput: -1n, output: 0n, action }] } },
      inputs: [],
      platform: options.state.platform,
      meta: internal("setting cache mount permissions", options),
    },
    index: 0,
  };
}

interface Mounts {
  mounts: MountInit[];
  secretEnv: { ID: string; name: string; optional: boolean }[];
  env: string[];
}

async function addMount({ type, options: raw }: RunMount, into: Mounts, inputs: Output[], options: Options): Promise<void> {
  const { expand, state, wants } = options;
  const { range } = options.instruction;
  const given = Object.fromEntries(Object.entries(raw).map(([name, value]) => [name, name === "from" ? value : expand.word(value)]));
  const yes = (name: string): boolean | undefined => {
    const text = given[name];
    if (text === undefined) return undefined;
    const value = parseBool(text);
    if (value === undefined) throw new DockerfileError(`invalid value for ${name}: ${text}`, range);
    return value;
  };
  const number = (name: string, radix = 10): number | undefined => {
    const text = given[name];
    if (text === undefined) return undefined;
    if (!(radix === 8 ? /^[0-7]{1,5}$/ : /^\d{1,10}$/).test(text)) throw new DockerfileError(`invalid value ${text} for ${name}`, range);
    return Number.parseInt(text, radix);
  };
  const inputOf = (output: Output): bigint => {
    const found = inputs.findIndex(({ node, index }, i) => i > 0 && node === output.node && index === output.index);
    return BigInt(found < 0 ? inputs.push(output) - 1 : found);
  };
  const required = yes("required") ?? false;

  if (type === "secret") {
    const { target, env } = given;
    const id = given.id || given.source || (target ? posix.basename(target) : "");
    if (id === "") throw new DockerfileError("invalid secret mount. one of source, target required", range);
    wants.secrets.push({ name: id, required, range });
    if (env !== undefined) into.secretEnv.push({ ID: id, name: env, optional: !required });
    if (env === undefined || target !== undefined) {
      const secretOpt = { ID: id, uid: number("uid") ?? 0, gid: number("gid") ?? 0, mode: number("mode", 8) ?? 0o400, optional: !required };
      const dest = target ? posix.resolve("/", state.config.WorkingDir || "/", target) : `/run/secrets/${posix.basename(id)}`;
      into.mounts.push({ input: -1n, output: -1n, dest, mountType: MountType.SECRET, secretOpt });
    }
    return;
  }
  if (type === "ssh") {
    const id = given.id || given.source || "default";
    wants.ssh.push({ name: id, required, range });
    const number_ = into.mounts.filter(({ mountType }) => mountType === MountType.SSH).length;
    const dest = given.target || `/run/buildkit/ssh_agent.${number_}`;
    const SSHOpt = { ID: id, uid: number("uid") ?? 0, gid: number("gid") ?? 0, mode: number("mode", 8) ?? 0o600, optional: !required };
    into.mounts.push({ input: -1n, output: -1n, dest, mountType: MountType.SSH, SSHOpt });
    if (number_ === 0) into.env.push(`SSH_AUTH_SOCK=${dest}`);
    return;
  }

  if (!given.target) throw new DockerfileError(`${type} mounts require a target path`, range);
  const dest = posix.resolve("/", state.config.WorkingDir || "/", given.target);
  if (dest === "/") throw new DockerfileError(`invalid mount target ${JSON.stringify(given.target)}`, range);
  const selector = posix.join("/", given.source ?? "/");
  const readonly = yes("readonly") ?? (yes("readwrite") === undefined ? undefined : !yes("readwrite"));
  if (type === "tmpfs") {
    const size = given.size === undefined ? 0 : sizeOf(given.size);
    if (size === undefined) throw new DockerfileError(`invalid size ${given.size} of a mount`, range);
    into.mounts.push({
      input: -1n,
      output: -1n,
      dest,
      mountType: MountType.TMPFS,
      TmpfsOpt: { size: BigInt(size) },
      readonly: readonly ?? false,
    });
    return;
  }
  if (type === "cache") {
    const sharing = SHARING[given.sharing ?? "shared"];
    if (sharing === undefined) throw new DockerfileError(`unsupported sharing value ${JSON.stringify(given.sharing)}`, range);
    const id = given.id || posix.normalize(given.target);
    wants.caches.push({ id, range });
    let from = given.from === undefined ? undefined : await options.tree(given.from);
    let within = selector;
    const [mode, uid, gid] = [number("mode", 8), number("uid"), number("gid")];
    if (given.from === undefined && selector === "/" && (mode !== undefined || uid !== undefined || gid !== undefined)) {
      from = scratchDirectory(mode ?? 0o755, uid ?? 0, gid ?? 0, options);
      within = "/cache";
    }
    into.mounts.push({
      input: from ? inputOf(from) : -1n,
      output: -1n,
      dest,
      mountType: MountType.CACHE,
      cacheOpt: { ID: `${options.settings.cacheNamespace}/${id}`, sharing },
      readonly: readonly ?? false,
      selector: within === "/" ? "" : within,
    });
    return;
  }
  const tree = given.from === undefined ? options.context(selector) : await options.tree(given.from);
  into.mounts.push({
    input: tree ? inputOf(tree) : -1n,
    // What is written into a bind is lost with the step.
    output: -1n,
    dest,
    mountType: MountType.BIND,
    readonly: readonly ?? true,
    selector: selector === "/" ? "" : selector,
  });
}

/** The words of the command, and a file to run where the here-document names its interpreter. */
function commandOf(options: Options): { args: string[]; script: { name: string; content: string } | undefined } {
  const { instruction, state } = options;
  const { command, heredocs } = instruction;
  if (command.form === "exec" || heredocs.length === 0) return { args: argsOf(command, state), script: undefined };
  const [document] = heredocs;
  const line = (text: string) => argsOf({ form: "shell", line: text }, state);
  if (heredocs.length === 1 && /^\d*<<-?\s*\S+$/.test(command.line.trim())) {
    const content = document!.content;
    if (!content.startsWith("#!")) return { args: line(content), script: undefined };
    const name = document!.name.replace(/[^A-Za-z0-9_.-]/g, "_");
    return { args: [`/dev/pipes/${name}`], script: { name, content } };
  }
  return { args: line(command.line + heredocs.map(({ content, name }) => `\n${content}${name}`).join("")), script: undefined };
}

const NETWORKS = { default: NetMode.UNSET, none: NetMode.NONE, host: NetMode.HOST };

function proxyOf(options: Options) {
  const env = envOf(options.state.config);
  const value = (name: string) =>
    [name, name.toUpperCase()]
      .filter((each) => !env.has(each) && !options.state.args.has(each))
      .map((each) => options.buildArgs.get(each))
      .find((each) => each !== undefined) ?? "";
  if (!PROXIES.some((name) => options.buildArgs.has(name))) return undefined;
  return {
    httpProxy: value("http_proxy"),
    httpsProxy: value("https_proxy"),
    ftpProxy: value("ftp_proxy"),
    noProxy: value("no_proxy"),
    allProxy: value("all_proxy"),
  };
}

export async function runNode(options: Options): Promise<{ output: Output; text: string }> {
  const { state, instruction, settings } = options;
  const { args, script } = commandOf(options);
  if (args.length === 0) throw new DockerfileError("RUN requires at least one argument", instruction.range);
  // The first input is the root, which may be empty.
  const inputs: Output[] = [];
  const root: MountInit = { input: -1n, output: 0n, dest: "/", mountType: MountType.BIND };
  if (state.output) root.input = BigInt(inputs.push(state.output) - 1);
  const found: Mounts = { mounts: [], secretEnv: [], env: [] };
  for (const mount of instruction.mounts) await addMount(mount, found, inputs, options);
  if (script) {
    const input = BigInt(inputs.push(scratchFile(`/${script.name}`, 0o755, script.content, options)) - 1);
    found.mounts.push({ input, output: -1n, dest: "/dev/pipes/", mountType: MountType.BIND, readonly: true });
  }
  if (settings.shmSize > 0)
    found.mounts.push({
      input: -1n,
      output: -1n,
      dest: "/dev/shm",
      mountType: MountType.TMPFS,
      TmpfsOpt: { size: BigInt(settings.shmSize) },
    });
  const env = envOf(state.config);
  const declared = [...state.args].filter((entry): entry is [string, string] => entry[1] !== undefined && !env.has(entry[0]));
  const extra = declared.map(([name, value]) => `${name}=${value}`);
  const network = instruction.network === "default" ? settings.network : (instruction.network as keyof typeof NETWORKS);
  const proxyEnv = proxyOf(options);
  const exec: MessageInitShape<typeof ExecOpSchema> = {
    meta: {
      args,
      env: [...(state.config.Env ?? []), ...extra, ...found.env],
      cwd: state.config.WorkingDir || "/",
      user: state.config.User ?? "",
      ...(proxyEnv ? { proxyEnv } : {}),
      extraHosts: settings.extraHosts,
      hostname: settings.hostname,
      ulimit: settings.ulimits,
      cgroupParent: settings.cgroupParent,
      removeMountStubsRecursive: true,
    },
    mounts: [root, ...found.mounts],
    network: NETWORKS[network],
    security: instruction.security === "insecure" ? SecurityMode.INSECURE : SecurityMode.SANDBOX,
    secretenv: found.secretEnv,
  };
  const text = summary(instruction);
  const shown = expandShown(text, options.escapeChar, (name) => env.get(name) ?? state.args.get(name));
  const node: Node = { op: { case: "exec", value: exec as never }, inputs, platform: state.platform, meta: options.meta(text, shown) };
  const counted = extra.length > 0 ? `|${extra.length} ${extra.join(" ")} ` : "";
  return { output: { node, index: 0 }, text: `RUN ${counted}${args.join(" ")} # buildkit` };
}

/** A here-document's first line says what it is about. */
function summary({ original, keyword, heredocs }: Of<"RUN">): string {
  const line = `RUN${original.slice(keyword.length)}`;
  const [document] = heredocs;
  if (heredocs.length !== 1 || !/\d*<<-?\s*\S+$/.test(line.trim())) return line;
  const [first = "", ...more] = document!.content.trim().split(/\r?\n/);
  return `${line} (${first}${more.length > 0 ? "..." : ""})`;
}
