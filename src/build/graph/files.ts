// RUN, COPY and ADD as vertices.
import { posix } from "node:path";
import { DockerfileError, expandHeredoc, type Of } from "../dockerfile/index.ts";
import { argsOf } from "./config.ts";
import type { ExecMount, FileAction, Graph } from "./llb.ts";
import { type Expander, envOf, PROXIES, type StageState } from "./state.ts";

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

async function mountsOf(instruction: Of<"RUN">, common: Common, inputs: string[]): Promise<ExecMount[]> {
  const { expand, state, graph } = common;
  const { range } = instruction;
  const mounts: ExecMount[] = [];
  for (const { type, options: raw } of instruction.mounts) {
    const options = Object.fromEntries(Object.entries(raw).map(([name, value]) => [name, expand.word(value)]));
    if (type === "secret" || type === "ssh") {
      if (options.required !== "true" && options.required !== "1") continue;
      throw new DockerfileError(
        `--mount=type=${type} with required needs a client with a BuildKit session, which this door does not have`,
        range,
      );
    }
    if (!options.target) {
      throw new DockerfileError(`${type} mounts require a target path`, range);
    }
    const number = (name: string, absent: number, radix = 10): number => {
      const text = options[name];
      if (text === undefined) return absent;
      if (!(radix === 8 ? /^[0-7]{1,5}$/ : /^\d{1,10}$/).test(text))
        throw new DockerfileError(`invalid value ${text} for ${name} of a mount`, range);
      return Number.parseInt(text, radix);
    };
    const destination = posix.resolve("/", state.config.WorkingDir ?? "/", options.target);
    if (destination === "/") throw new DockerfileError('invalid mount target "/"', range);
    const size = options.size === undefined ? 0 : sizeOf(options.size);
    if (size === undefined) throw new DockerfileError(`invalid size ${options.size} of a mount`, range);
    let input = -1;
    if (type === "bind" || options.from !== undefined) {
      const vertex =
        options.from === undefined
          ? graph.add([], { source: { identifier: "local://context", attrs: {} } })
          : await common.tree(options.from);
      input = inputs.indexOf(vertex, 1);
      if (input < 0) input = inputs.push(vertex) - 1;
    }
    mounts.push({
      type,
      destination,
      input,
      selector: posix.join("/", options.source ?? "/"),
      readonly: type === "bind" ? options.readwrite !== "true" : options.readonly === "true",
      id: type === "cache" ? options.id || destination : "",
      size,
      mode: number("mode", type === "tmpfs" ? 0o1777 : 0o755, 8),
      uid: number("uid", 0),
      gid: number("gid", 0),
    });
  }
  return mounts;
}

export async function runVertex(
  common: Common & { instruction: Of<"RUN">; buildArgs: ReadonlyMap<string, string>; network: string },
): Promise<{ vertex: string; text: string }> {
  const { graph, state, instruction, buildArgs } = common;
  const { heredocs } = instruction;
  let { command } = instruction;
  const scripts: { path: string; content: string }[] = [];
  if (command.form === "shell" && heredocs.length > 0) {
    const alone = heredocs.length === 1 && /^\d*<<-?\s*\S+$/.test(command.line.trim());
    const [document] = heredocs;
    if (alone && document!.content.startsWith("#!")) {
      const path = `/dev/pipes/${document!.name.replace(/[^A-Za-z0-9_.-]/g, "_")}`;
      scripts.push({ path, content: document!.content });
      command = { form: "exec", args: [path] };
    } else if (alone) command = { form: "shell", line: document!.content };
    else command = { form: "shell", line: command.line + heredocs.map(({ content, name }) => `\n${content}${name}`).join("") };
  }
  const args = argsOf(command, state);
  if (args.length === 0) throw new DockerfileError("RUN requires at least one argument", instruction.range);
  const inputs = [state.vertex];
  const mounts = await mountsOf(instruction, common, inputs);
  const env = envOf(state.config);
  const extra = [...state.args].filter(([name]) => !env.has(name)).map(([name, value]) => `${name}=${value}`);
  const proxyEnv = PROXIES.flatMap((name) => {
    const value = buildArgs.get(name);
    return value === undefined || env.has(name) || state.args.has(name) ? [] : [`${name}=${value}`];
  });
  const network = instruction.network === "default" ? common.network : instruction.network;
  const vertex = graph.add(inputs, {
    exec: {
      meta: { args, env: [...(state.config.Env ?? []), ...extra], cwd: state.config.WorkingDir || "/", user: state.config.User ?? "" },
      proxyEnv,
      network,
      security: instruction.security,
      mounts,
      scripts,
    },
  });
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
  const inputs = [state.vertex];
  const actions: FileAction[] = [];
  const base = {
    owner,
    mode,
    keepOwner: kind === "COPY" && flags.from !== undefined,
    exclude: flags.exclude.map((each) => expand.word(each)),
    parents: flags.parents,
  };
  const plain: string[] = [];
  for (const { raw, text } of sources) {
    const document = instruction.heredocs.find(
      ({ name }) => /^\d*<</.test(raw) && raw.replace(/^\d*<<-?/, "").replace(/["']/g, "") === name,
    );
    if (document) {
      const content = document.expand ? expandHeredoc(document.content, escapeChar, expand.variables) : document.content;
      actions.push({ kind: "mkfile", path: destination, name: document.name, content, mode: mode ?? 0o644, owner });
    } else if (kind === "ADD" && isGit(text)) throw new DockerfileError(`ADD of a git repository is not supported: ${text}`, range);
    else if (kind === "ADD" && isUrl(text)) {
      const attrs: Record<string, string> = flags.checksum === undefined ? {} : { checksum: expand.word(flags.checksum) };
      const input = inputs.push(graph.add([], { source: { identifier: text, attrs } })) - 1;
      const unpack = flags.unpack === true;
      actions.push({ kind: "copy", input, sources: ["*"], destination, ...base, mode: mode ?? 0o600, unpack });
    } else plain.push(text);
  }
  if (plain.length > 0) {
    if (kind === "ADD" && flags.checksum !== undefined) throw new DockerfileError("checksum can't be specified for local sources", range);
    const from =
      flags.from === undefined ? graph.add([], { source: { identifier: "local://context", attrs: {} } }) : await common.tree(flags.from);
    const input = inputs.push(from) - 1;
    actions.push({ kind: "copy", input, sources: plain, destination, ...base, unpack: kind === "ADD" && flags.unpack !== false });
  }
  const vertex = graph.add(inputs, { file: { actions } });
  const chown = flags.chown === undefined ? "" : `--chown=${owner} `;
  const chmod = flags.chmod === undefined ? "" : `--chmod=${flags.chmod} `;
  return { vertex, text: `${kind} ${chown}${chmod}${sources.map(({ text }) => text).join(" ")} ${given} # buildkit` };
}
