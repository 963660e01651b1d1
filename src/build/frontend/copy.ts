// COPY and ADD as operations.
import { posix } from "node:path";
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { ChownOptSchema, FileActionCopy, FileActionCopySchema, FileActionSchema } from "../../gen/pb_pb.ts";
import { DockerfileError, expandHeredoc, type Of } from "../dockerfile/index.ts";
import type { Meta, Node, Output } from "./nodes.ts";
import { gitReference, gitSource, httpSource, isAddress, nameOfAddress } from "./sources.ts";
import type { Expander, StageState } from "./state.ts";

type CopyInit = MessageInitShape<typeof FileActionCopySchema>;
type ChownInit = MessageInitShape<typeof ChownOptSchema>;

interface Options {
  state: StageState;
  instruction: Of<"COPY" | "ADD">;
  expand: Expander;
  escapeChar: string;
  meta(text: string): Meta;
  tree(ref: string): Promise<Output | undefined>;
  context(path: string): Output | undefined;
  /** Directories on the way to the destination are root's whatever --chown says, as the classic builder makes them. */
  rootAbove: boolean;
  /** Hears of each path of the context that is copied. */
  wanted(path: string): void;
}

/** Octal, or symbolic as chmod(1) has it: "u=rwX,go+r". */
const SYMBOLIC = /^[ugoa]*(?:[-+=](?:[rwxXst]*|[ugo]))+(?:,[ugoa]*(?:[-+=](?:[rwxXst]*|[ugo]))+)*$/;

function modeOf(text: string | undefined, instruction: Of<"COPY" | "ADD">): { mode: number; modeStr: string } {
  if (text === undefined || text === "") return { mode: -1, modeStr: "" };
  if (/^[0-7]{1,5}$/.test(text) && Number.parseInt(text, 8) <= 0o7777) return { mode: Number.parseInt(text, 8), modeStr: "" };
  if (!/^\d/.test(text) && SYMBOLIC.test(text)) return { mode: -1, modeStr: text };
  throw new DockerfileError(`invalid chmod parameter: '${text}'. it should be octal string and between 0 and 07777`, instruction.range);
}

/** "user:group", names or numbers; names are looked up in the tree that input `base` is. */
export function ownerMessage(text: string, base: bigint): ChownInit {
  const [user = "", group] = text.split(":", 2);
  const one = (name: string) =>
    /^\d{1,10}$/.test(name)
      ? { user: { case: "byID" as const, value: Number(name) } }
      : { user: { case: "byName" as const, value: { name, input: base } } };
  return { ...(user === "" ? {} : { user: one(user) }), ...(group === undefined || group === "" ? {} : { group: one(group) }) };
}

interface Part {
  tree: Output | undefined;
  copy: CopyInit;
}

function heredocTree(name: string, content: string, state: StageState, meta: Meta): Output {
  const action = { case: "mkfile" as const, value: { path: `/${name}`, mode: 0o644, data: Buffer.from(content), timestamp: -1n } };
  const op: Node["op"] = { case: "file", value: { actions: [{ input: -1n, secondaryInput: -1n, output: 0n, action }] } };
  return { node: { op, inputs: [], platform: state.platform, meta }, index: 0 };
}

export async function copyNode(options: Options): Promise<{ output: Output; text: string }> {
  const { state, instruction, expand, escapeChar } = options;
  const { flags, range, kind } = instruction;
  const given = expand.word(instruction.destination);
  const resolved = posix.resolve("/", state.config.WorkingDir || "/", given);
  const sources = instruction.sources.map((source) => ({ raw: source, text: expand.word(source) }));
  const directory = given.endsWith("/") || given === "." || given.endsWith("/.");
  if (sources.length > 1 && !directory)
    throw new DockerfileError(
      `When using ${kind} with more than one source file, the destination must be a directory and end with a /`,
      range,
    );
  const dest = directory && resolved !== "/" ? `${resolved}/` : resolved;
  const owner = flags.chown === undefined ? "" : expand.word(flags.chown);
  const chmod = flags.chmod === undefined ? undefined : expand.word(flags.chmod);
  const excludePatterns = flags.exclude.map((each) => expand.word(each));
  const checksum = flags.checksum === undefined ? undefined : expand.word(flags.checksum);
  if (checksum !== undefined && sources.length > 1) throw new DockerfileError("checksum can't be specified for multiple sources", range);
  const common: CopyInit = { dest, ...modeOf(chmod, instruction), createDestPath: true, excludePatterns, timestamp: -1n };
  const internal = (name: string): Meta => ({ name: `[internal] ${name}`, range });
  const chownText = flags.chown === undefined ? "" : `--chown=${owner} `;
  const chmodText = flags.chmod === undefined ? "" : `--chmod=${chmod} `;
  const words = sources.map(({ text }) => text).join(" ");
  const shown = `${kind} ${flags.from === undefined ? "" : `--from=${flags.from} `}${flags.link ? "--link " : ""}${chownText}${chmodText}${words} ${given}`;
  const history = `${kind} ${chownText}${chmodText}${words} ${given} # buildkit`;

  const meta = options.meta(shown);
  const parts: Part[] = [];
  const documents: Part[] = [];
  for (const { raw, text } of sources) {
    const document = instruction.heredocs.find(
      ({ name }) => /^\d*<</.test(raw) && raw.replace(/^\d*<<-?/, "").replace(/["']/g, "") === name,
    );
    const git = document ? undefined : gitReference(text, false);
    if (document) {
      if (/[/\0]/.test(document.name)) throw new DockerfileError(`invalid name of a here-document: ${document.name}`, range);
      const content = document.expand ? expandHeredoc(document.content, escapeChar, expand.variables) : document.content;
      const tree = heredocTree(document.name, content, state, internal("preparing inline document"));
      documents.push({ tree, copy: { ...common, src: `/${document.name}` } });
    } else if (git) {
      if (kind === "COPY") throw new DockerfileError("source can't be a git ref for COPY", range);
      const commit = checksum ?? git.checksum;
      const tree = gitSource({ ...git, checksum: commit }, flags.keepGitDir, meta);
      parts.push({ tree, copy: { ...common, src: "/", dirCopyContents: true } });
    } else if (isAddress(text)) {
      if (kind === "COPY") throw new DockerfileError("source can't be a URL for COPY", range);
      const name = nameOfAddress(text);
      if (name === "__unnamed__" && directory) throw new DockerfileError(`cannot determine filename from url: ${text}`, range);
      const tree = httpSource(text, name, checksum, meta);
      parts.push({ tree, copy: { ...common, src: `/${name}`, attemptUnpackDockerCompatibility: flags.unpack === true } });
    } else {
      if (checksum !== undefined) throw new DockerfileError("checksum requires HTTP(S) or Git sources", range);
      const plain: CopyInit = {
        ...common,
        followSymlink: true,
        dirCopyContents: true,
        attemptUnpackDockerCompatibility: flags.unpack ?? kind === "ADD",
        allowWildcard: true,
        allowEmptyWildcard: true,
      };
      let src = text;
      if (flags.parents) {
        // "/./" says from where on the directories are kept.
        const pivot = text.indexOf("/./");
        const pattern = posix
          .join("/", pivot < 0 ? text : text.slice(pivot + 3))
          .slice(1)
          .replace(/\/$/, "");
        src = pivot < 0 ? "/" : text.slice(0, pivot);
        plain.includePatterns = [pattern === "" ? "**" : pattern];
        if (!/[*?[\\]/.test(pattern) && pattern !== "") plain.requiredPaths = [pattern];
      }
      const path = posix.resolve("/", src);
      if (flags.from === undefined) options.wanted(text);
      const tree =
        flags.from === undefined ? options.context(flags.parents ? posix.join("/", text) : path) : await options.tree(flags.from);
      parts.push({ tree, copy: { ...plain, src: path } });
    }
  }

  const all = [...parts, ...documents];
  const alone = flags.link && chmod === undefined;
  const inputs: Output[] = [];
  const base = alone || !state.output ? -1n : BigInt(inputs.push(state.output) - 1);
  const places = all.map(({ tree }) => {
    if (!tree) return -1n;
    const found = inputs.findIndex(({ node, index }, i) => (base < 0n || i > 0) && node === tree.node && index === tree.index);
    return BigInt(found < 0 ? inputs.push(tree) - 1 : found);
  });
  const actions: MessageInitShape<typeof FileActionSchema>[] = [];
  const add = (secondaryInput: bigint, output: bigint, action: (typeof actions)[number]["action"]) =>
    actions.push({
      input: actions.length === 0 ? base : BigInt(inputs.length + actions.length - 1),
      secondaryInput,
      output,
      action: action!,
    });
  const above = posix.dirname(resolved);
  if (options.rootAbove && owner !== "" && above !== "/")
    add(-1n, -1n, { case: "mkdir", value: { path: above, mode: 0o755, makeParents: true, timestamp: -1n } });
  for (const [i, { copy }] of all.entries()) {
    const value = (owner === "" ? copy : { ...copy, owner: ownerMessage(owner, base) }) as FileActionCopy;
    add(places[i]!, i === all.length - 1 ? 0n : -1n, { case: "copy", value });
  }
  const file: Node["op"] = { case: "file", value: { actions } };
  if (!alone || !state.output) return { output: { node: { op: file, inputs, platform: state.platform, meta }, index: 0 }, text: history };
  // A layer of its own upon whatever lies below: it stays the same when that changes.
  const copied: Output = { node: { op: file, inputs, platform: state.platform, meta }, index: 0 };
  const merge: Node["op"] = { case: "merge", value: { inputs: [{ input: 0n }, { input: 1n }] } };
  return {
    output: {
      node: { op: merge, inputs: [state.output, copied], platform: undefined, meta: { ...meta, name: `LINK ${meta.name}` } },
      index: 0,
    },
    text: history,
  };
}
