// RUN, COPY and ADD as vertices.
import { posix } from "node:path";
import { CacheSharingOpt, MountType, NetMode, SecurityMode } from "../../gen/pb_pb.ts";
import { DockerfileError, expandHeredoc, type Of } from "../dockerfile/index.ts";
import { argsOf } from "./config.ts";
import { type Edge, edge, type Graph } from "./llb.ts";
import { type ActionInit, chownOpt, execOp, fileOp, type MountInit, sourceOp } from "./operations.ts";
import { type Expander, envOf, type StageState } from "./state.ts";

interface Common {
  graph: Graph;
  state: StageState;
  expand: Expander;
  /** The tree of a stage or an image that `from` names. */
  tree(ref: string): Promise<string>;
}

const SIZES: Record<string, number> = { "": 1, b: 1, k: 1 << 10, m: 1 << 20, g: 1 << 30 };

function sizeOf(text: string): number | undefined {
  const match = /^(\d{1,15})([bkmg]?)b?$/i.exec(text);
  return match ? Number(match[1]) * SIZES[match[2]!.toLowerCase()]! : undefined;
}

const SHARING: Record<string, CacheSharingOpt> = {
  shared: CacheSharingOpt.SHARED,
  private: CacheSharingOpt.PRIVATE,
  locked: CacheSharingOpt.LOCKED,
};

/** The edge of a stage's tree; "" is the empty one. */
export const edgeOf = (vertex: string): Edge | undefined => (vertex === "" ? undefined : edge(vertex));

interface StepMounts {
  mounts: MountInit[];
  env: string[];
  secretenv: { ID: string; name: string; optional: boolean }[];
}

async function mountsOf(instruction: Of<"RUN">, common: Common): Promise<StepMounts> {
  const { expand, state, graph } = common;
  const { range } = instruction;
  const mounts: MountInit[] = [];
  const env: string[] = [];
  const secretenv: StepMounts["secretenv"] = [];
  for (const { type, options: raw } of instruction.mounts) {
    const options = Object.fromEntries(Object.entries(raw).map(([name, value]) => [name, expand.word(value)]));
    const number = (name: string, absent: number, radix = 10): number => {
      const text = options[name];
      if (text === undefined) return absent;
      if (!(radix === 8 ? /^[0-7]{1,5}$/ : /^\d{1,10}$/).test(text))
        throw new DockerfileError(`invalid value ${text} for ${name} of a mount`, range);
      return Number.parseInt(text, radix);
    };
    const placeOf = (target: string): string => {
      const dest = posix.resolve("/", state.config.WorkingDir ?? "/", target);
      if (dest === "/") throw new DockerfileError('invalid mount target "/"', range);
      return dest;
    };
    const optional = options.required !== "true" && options.required !== "1";
    const owner = { uid: number("uid", 0), gid: number("gid", 0) };
    if (type === "secret") {
      const ID = options.id || posix.basename(options.target ?? "");
      if (ID === "") throw new DockerfileError("secret mounts require an id or a target", range);
      if (options.env) secretenv.push({ ID, name: options.env, optional });
      if (!options.env || options.target) {
        const SecretOpt = { ID, ...owner, mode: number("mode", 0o400, 8), optional };
        mounts.push({ dest: placeOf(options.target || `/run/secrets/${ID}`), mountType: MountType.SECRET, secretOpt: SecretOpt });
      }
      continue;
    }
    if (type === "ssh") {
      const dest = placeOf(options.target || `/run/buildkit/ssh_agent.${mounts.filter(({ SSHOpt }) => SSHOpt).length}`);
      if (!mounts.some(({ SSHOpt }) => SSHOpt)) env.push(`SSH_AUTH_SOCK=${dest}`);
      mounts.push({
        dest,
        mountType: MountType.SSH,
        SSHOpt: { ID: options.id || "default", ...owner, mode: number("mode", 0o600, 8), optional },
      });
      continue;
    }
    if (!options.target) throw new DockerfileError(`${type} mounts require a target path`, range);
    const dest = placeOf(options.target);
    if (type === "tmpfs") {
      const size = options.size === undefined ? 0 : sizeOf(options.size);
      if (size === undefined) throw new DockerfileError(`invalid size ${options.size} of a mount`, range);
      mounts.push({ dest, mountType: MountType.TMPFS, TmpfsOpt: { size: BigInt(size) } });
      continue;
    }
    let selector = posix.join("/", options.source ?? "/");
    let source: Edge | undefined;
    if (options.from !== undefined) source = edgeOf(await common.tree(options.from));
    else if (type === "bind") source = edge(graph.add(sourceOp("local://context")));
    if (type === "bind") {
      mounts.push({ dest, source, selector, readonly: options.readwrite !== "true" && options.rw !== "true" });
      continue;
    }
    const sharing = SHARING[options.sharing ?? "shared"];
    if (sharing === undefined) throw new DockerfileError(`invalid sharing mode ${options.sharing} of a mount`, range);
    if (!source && ["mode", "uid", "gid"].some((name) => options[name] !== undefined)) {
      const owned = { user: { case: "byID" as const, value: owner.uid } };
      const group = { user: { case: "byID" as const, value: owner.gid } };
      const made = fileOp(undefined, [{ mkdir: { path: "/cache", mode: number("mode", 0o755, 8), owner: { user: owned, group } } }]);
      source = edge(graph.add(made));
      selector = "/cache";
    }
    mounts.push({
      dest,
      source,
      selector: source ? selector : "",
      readonly: options.readonly === "true" || options.ro === "true",
      mountType: MountType.CACHE,
      cacheOpt: { ID: options.id || dest, sharing },
    });
  }
  return { mounts, env, secretenv };
}

export async function runVertex(
  common: Common & { instruction: Of<"RUN">; buildArgs: ReadonlyMap<string, string>; network: string },
): Promise<{ vertex: string; text: string }> {
  const { graph, state, instruction, buildArgs } = common;
  const { heredocs } = instruction;
  let { command } = instruction;
  const scripts: MountInit[] = [];
  if (command.form === "shell" && heredocs.length > 0) {
    const alone = heredocs.length === 1 && /^\d*<<-?\s*\S+$/.test(command.line.trim());
    const [document] = heredocs;
    if (alone && document!.content.startsWith("#!")) {
      const name = document!.name.replace(/[^A-Za-z0-9_.-]/g, "_");
      const path = `/dev/pipes/${name}`;
      const made = fileOp(undefined, [{ mkfile: { path: `/${name}`, mode: 0o755, data: Buffer.from(document!.content) } }]);
      scripts.push({ dest: path, source: edge(graph.add(made)), selector: `/${name}`, readonly: true });
      command = { form: "exec", args: [path] };
    } else if (alone) command = { form: "shell", line: document!.content };
    else command = { form: "shell", line: command.line + heredocs.map(({ content, name }) => `\n${content}${name}`).join("") };
  }
  const args = argsOf(command, state);
  if (args.length === 0) throw new DockerfileError("RUN requires at least one argument", instruction.range);
  const { mounts, env: mountEnv, secretenv } = await mountsOf(instruction, common);
  const env = envOf(state.config);
  const extra = [...state.args].filter(([name]) => !env.has(name)).map(([name, value]) => `${name}=${value}`);
  const proxy = (name: string): string => {
    const value = buildArgs.get(name.toUpperCase()) ?? buildArgs.get(name);
    return value === undefined || [name, name.toUpperCase()].some((each) => env.has(each) || state.args.has(each)) ? "" : value;
  };
  const proxyEnv = {
    httpProxy: proxy("http_proxy"),
    httpsProxy: proxy("https_proxy"),
    ftpProxy: proxy("ftp_proxy"),
    noProxy: proxy("no_proxy"),
    allProxy: proxy("all_proxy"),
  };
  const network = instruction.network === "default" ? common.network : instruction.network;
  const op = execOp(
    {
      meta: {
        args,
        env: [...(state.config.Env ?? []), ...extra, ...mountEnv],
        cwd: state.config.WorkingDir || "/",
        user: state.config.User ?? "",
        removeMountStubsRecursive: true,
        ...(Object.values(proxyEnv).some((value) => value !== "") ? { proxyEnv } : {}),
      },
      network: network === "host" ? NetMode.HOST : network === "none" ? NetMode.NONE : NetMode.UNSET,
      security: instruction.security === "insecure" ? SecurityMode.INSECURE : SecurityMode.SANDBOX,
      secretenv,
    },
    [{ dest: "/", source: edgeOf(state.vertex), output: 0 }, ...mounts, ...scripts],
  );
  const vertex = graph.add(op);
  const counted = extra.length > 0 ? `|${extra.length} ${extra.join(" ")} ` : "";
  return { vertex, text: `RUN ${counted}${args.join(" ")} # buildkit` };
}

function modeOf(text: string | undefined, instruction: Of<"COPY" | "ADD">): number | undefined {
  if (text === undefined) return undefined;
  if (!/^[0-7]{1,4}$/.test(text))
    throw new DockerfileError(`invalid chmod parameter: '${text}'. it should be octal string and between 0 and 07777`, instruction.range);
  return Number.parseInt(text, 8);
}

const isUrl = (text: string) => /^https?:\/\//i.test(text);
const isGit = (text: string) => /^(git@|git:\/\/|ssh:\/\/)|^https?:\/\/.*\.git(#|$)/i.test(text);

export async function copyVertex(
  common: Common & { instruction: Of<"COPY" | "ADD">; escapeChar: string },
): Promise<{ vertex: string; text: string }> {
  const { graph, state, instruction, expand, escapeChar } = common;
  const { flags, range, kind } = instruction;
  const given = expand.word(instruction.destination);
  const resolved = posix.resolve("/", state.config.WorkingDir ?? "/", given);
  const sources = instruction.sources.map((source) => ({ raw: source, text: expand.word(source) }));
  const directory = given.endsWith("/") || given === "." || given.endsWith("/.");
  if (sources.length > 1 && !directory)
    throw new DockerfileError(
      `When using ${kind} with more than one source file, the destination must be a directory and end with a /`,
      range,
    );
  const destination = directory && resolved !== "/" ? `${resolved}/` : resolved;
  const owner = flags.chown === undefined ? "" : expand.word(flags.chown);
  const mode = modeOf(flags.chmod === undefined ? undefined : expand.word(flags.chmod), instruction);
  const base = edgeOf(state.vertex);
  const actions: ActionInit[] = [];
  const owned = owner === "" ? {} : { owner: chownOpt(owner, base) };
  const excludePatterns = flags.exclude.map((each) => expand.word(each));
  const shared = { dest: destination, ...owned, excludePatterns, createDestPath: true, followSymlink: true };
  const plain: string[] = [];
  for (const { raw, text } of sources) {
    const document = instruction.heredocs.find(
      ({ name }) => /^\d*<</.test(raw) && raw.replace(/^\d*<<-?/, "").replace(/["']/g, "") === name,
    );
    if (document) {
      const content = document.expand ? expandHeredoc(document.content, escapeChar, expand.variables) : document.content;
      const made = fileOp(undefined, [{ mkfile: { path: `/${document.name}`, mode: mode ?? 0o644, data: Buffer.from(content) } }]);
      actions.push({ copy: { ...shared, src: `/${document.name}` }, from: edge(graph.add(made)) });
    } else if (kind === "ADD" && isGit(text)) throw new DockerfileError(`ADD of a git repository is not supported: ${text}`, range);
    else if (kind === "ADD" && isUrl(text)) {
      const attrs: Record<string, string> = flags.checksum === undefined ? {} : { "http.checksum": expand.word(flags.checksum) };
      const from = edge(graph.add(sourceOp(text, attrs)));
      const unpack = flags.unpack === true;
      actions.push({
        copy: { ...shared, src: "/*", allowWildcard: true, mode: mode ?? 0o600, attemptUnpackDockerCompatibility: unpack },
        from,
      });
    } else plain.push(text);
  }
  if (plain.length > 0) {
    if (kind === "ADD" && flags.checksum !== undefined) throw new DockerfileError("checksum can't be specified for local sources", range);
    const from = flags.from === undefined ? edge(graph.add(sourceOp("local://context"))) : edgeOf(await common.tree(flags.from));
    const attemptUnpackDockerCompatibility = kind === "ADD" && flags.unpack !== false;
    for (const text of plain) {
      const src = posix.join("/", text);
      // With --parents, what stands before "/./" is not part of what is made.
      const parents = flags.parents ? { src: text.includes("/./") ? posix.join("/", text.slice(0, text.indexOf("/./"))) : "/" } : {};
      const pattern = flags.parents ? posix.join("/", text.includes("/./") ? text.slice(text.indexOf("/./") + 3) : text).slice(1) : "";
      actions.push({
        copy: {
          ...shared,
          src,
          dirCopyContents: true,
          allowWildcard: true,
          allowEmptyWildcard: true,
          attemptUnpackDockerCompatibility,
          mode: mode ?? -1,
          ...(flags.parents ? { ...parents, includePatterns: [pattern], allowWildcard: false } : {}),
        },
        from,
      });
    }
  }
  const vertex = graph.add(fileOp(base, actions));
  const chown = flags.chown === undefined ? "" : `--chown=${owner} `;
  const chmod = flags.chmod === undefined ? "" : `--chmod=${flags.chmod} `;
  return { vertex, text: `${kind} ${chown}${chmod}${sources.map(({ text }) => text).join(" ")} ${given} # buildkit` };
}
