import { lstatSync, readlinkSync, statSync } from "node:fs";
import { dirname, isAbsolute, join, posix, resolve } from "node:path";
import type { Client, PathStat } from "../../client/index.ts";
import { type Cli, command, exactly } from "../command.ts";
import { bool } from "../flags.ts";
import { humanSize } from "../units.ts";

export default command({
  use: "[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n%PATH% [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
  short: "Copy files/folders between a container and the local filesystem",
  long: "Copy files/folders between a container and the local filesystem\n\nUse '-' as the source to read a tar archive from stdin\nand extract it to a directory destination in a container.\nUse '-' as the destination to stream a tar archive of a\ncontainer source to stdout.",
  args: exactly(2),
  flags: {
    archive: bool("a", "Archive mode (copy all uid/gid information)"),
    "follow-link": bool("L", "Always follow symbol link in SRC_PATH"),
    quiet: bool("q", "Suppress progress output during copy. Progress output is automatically suppressed if no terminal is attached"),
  },
  async run(cli, flags, args) {
    if (args[0] === "") throw new Error("source can not be empty");
    if (args[1] === "") throw new Error("destination can not be empty");
    const from = splitArgument(args[0]!);
    const to = splitArgument(args[1]!);
    if (from.container && to.container) throw new Error("copying between containers is not supported");
    if (!from.container && !to.container) throw new Error("must specify at least one container source");
    if (!cli.changed.has("quiet") && !cli.isTty(1)) flags.quiet = true;
    const client = await cli.client();
    if (from.container) await copyFrom(cli, client, from.container, from.path, to.path, flags);
    else await copyTo(cli, client, from.path, to.container!, to.path, flags);
  },
});

interface Flags {
  archive: boolean;
  "follow-link": boolean;
  quiet: boolean;
}

/** "container:path"; a path that begins with "/" or "." is local, whatever it holds. */
function splitArgument(text: string): { container: string | undefined; path: string } {
  if (isAbsolute(text)) return { container: undefined, path: text };
  const colon = text.indexOf(":");
  if (colon < 0 || text.startsWith(".")) return { container: undefined, path: text };
  return { container: text.slice(0, colon), path: text.slice(colon + 1) };
}

const endsAsDirectory = (path: string) => path.endsWith("/") || path.endsWith("/.") || path === ".";

/** Cleaned, but with a last "/" or "/." kept, as they carry meaning. */
function clean(path: string): string {
  const cleaned = posix.normalize(path).replace(/(.)\/$/, "$1");
  if (path.endsWith("/.") || path === ".") return cleaned === "/" ? "/." : `${cleaned}/.`;
  return path.endsWith("/") && !cleaned.endsWith("/") ? `${cleaned}/` : cleaned;
}

/** Directory and last name, where "a/." has the last name ".". */
function split(path: string): [dir: string, base: string] {
  const cleaned = clean(path);
  if (cleaned.endsWith("/.")) return [cleaned.slice(0, -2) || "/", "."];
  const plain = cleaned.replace(/(.)\/$/, "$1");
  return [posix.dirname(plain), posix.basename(plain)];
}

interface Place {
  path: string;
  exists: boolean;
  isDir: boolean;
}

/** Where the archive is unpacked, and how its first name is changed. */
export function plan(source: { path: string; isDir: boolean }, target: Place): { dir: string; from: string; to: string } {
  const [dir, base] = split(target.path);
  const [, name] = split(source.path);
  const same = { from: name, to: name };
  if (target.exists && target.isDir) return { dir: target.path, ...same };
  if (target.exists && source.isDir) throw new Error("cannot copy directory");
  if (!target.exists && !source.isDir && endsAsDirectory(target.path)) throw new Error("no such directory");
  return { dir, from: name, to: base };
}

export function renamer(from: string, to: string): (name: string) => string {
  if (from === to) return (name) => name;
  return (name) => {
    const plain = from === "." ? name.replace(/^\.\//, "") : name;
    if (from === ".") return plain === "." || plain === "" ? to : `${to}/${plain}`;
    if (plain === from || plain === `${from}/`) return to;
    return plain.startsWith(`${from}/`) ? `${to}/${plain.slice(from.length + 1)}` : plain;
  };
}

const MODE_DIR = 0x80000000;
const MODE_SYMLINK = 0x08000000;
// Bits above 2^31: plain numbers, as JavaScript's bit operators see 32 bits with a sign.
const has = (mode: number, bit: number) => Math.floor(mode / bit) % 2 === 1;

async function copyFrom(cli: Cli, client: Client, container: string, given: string, target: string, flags: Flags): Promise<void> {
  if (target === "-" && cli.isTty(1)) throw new Error("cowardly refusing to copy to a terminal: redirect the output or name a destination");
  let source = clean(given.startsWith("/") ? given : `/${given}`);
  let rebase: string | undefined;
  if (flags["follow-link"]) {
    const stat = await client.containers.statPath(container, source);
    if (has(stat.mode, MODE_SYMLINK)) {
      const link = stat.linkTarget;
      rebase = split(source)[1];
      source = link.startsWith("/") ? link : posix.join(split(source)[0], link);
    }
  }
  const response = await client.containers.getArchive(container, source);
  if (target === "-") {
    for await (const chunk of response.body) cli.out(chunk);
    return;
  }
  const stat = JSON.parse(atob(response.headers["x-docker-container-path-stat"] ?? "e30=")) as Partial<PathStat>;
  const isDir = has(stat.mode ?? 0, MODE_DIR);
  const place = localTarget(target);
  const { dir, from, to } = plan({ path: source, isDir }, place);
  const { unpack } = await import("../tar/unpack.ts");
  let copied = 0;
  const counted = (async function* () {
    for await (const chunk of response.body) {
      copied += chunk.length;
      yield chunk;
    }
  })();
  const name = rebase !== undefined && from === to ? rebase : to;
  await unpack(counted, dir, renamer(from, name));
  if (!flags.quiet) cli.err(`Successfully copied ${humanSize(copied, 3)} to ${target}\n`);
}

/** Follows links at the end of the path, so that what they point to is written. */
function localTarget(path: string): Place {
  let at = clean(path);
  for (let depth = 0; depth < 10; depth++) {
    try {
      const stats = lstatSync(at);
      if (!stats.isSymbolicLink()) return { path: at, exists: true, isDir: stats.isDirectory() };
      const link = readlinkSync(at.replace(/\/$/, ""));
      at = isAbsolute(link) ? link : join(dirname(at), link);
    } catch (error) {
      if ((error as { code?: string }).code === "ENOTDIR" && endsAsDirectory(at)) throw new Error("not a directory");
      const parent = split(at)[0];
      try {
        if (!statSync(parent).isDirectory()) throw new Error("not a directory");
      } catch {
        throw new Error(`invalid output path: directory ${JSON.stringify(resolve(parent))} does not exist`);
      }
      return { path: at, exists: false, isDir: false };
    }
  }
  throw new Error(`evaluation of ${JSON.stringify(path)}: too many links`);
}

async function copyTo(cli: Cli, client: Client, source: string, container: string, given: string, flags: Flags): Promise<void> {
  const target = clean(given.startsWith("/") ? given : `/${given}`);
  const place = await containerTarget(client, container, target);
  if (source === "-") {
    if (!place.isDir) throw new Error(`destination "${container}:${given}" must be a directory`);
    const { inputChunks } = await import("../terminal/input.ts");
    await client.containers.putArchive(
      container,
      { path: place.path, noOverwriteDirNonDir: true, copyUIDGID: flags.archive },
      inputChunks(0),
    );
    return;
  }
  const path = localSource(source, flags["follow-link"]);
  const isDir = statOrLstat(path).isDirectory();
  if (endsAsDirectory(source) && !isDir) throw new Error("not a directory");
  const kept = endsAsDirectory(source) && source.endsWith(".") ? `${path}/.` : path;
  const { dir, to } = plan({ path: kept, isDir }, place);
  const { packTree } = await import("../tar/pack.ts");
  let copied = 0;
  const counted = (async function* () {
    for await (const chunk of packTree(path, to)) {
      copied += chunk.length;
      yield chunk;
    }
  })();
  await client.containers.putArchive(container, { path: dir, noOverwriteDirNonDir: true, copyUIDGID: flags.archive }, counted);
  if (!flags.quiet) cli.err(`Successfully copied ${humanSize(copied, 3)} to ${container}:${given}\n`);
}

function statOrLstat(path: string) {
  try {
    return lstatSync(path);
  } catch {
    throw new Error(`lstat ${path}: no such file or directory`);
  }
}

/** The file itself, made absolute; its link's target with -L, or where the path says that a directory is meant. */
function localSource(path: string, follow: boolean): string {
  const at = resolve(path);
  const stats = statOrLstat(at);
  if (!stats.isSymbolicLink() || !(follow || endsAsDirectory(path))) return at;
  const link = readlinkSync(at);
  return isAbsolute(link) ? link : join(dirname(at), link);
}

async function containerTarget(client: Client, container: string, target: string): Promise<Place> {
  try {
    let path = target;
    let stat = await client.containers.statPath(container, path);
    if (has(stat.mode, MODE_SYMLINK)) {
      const link = stat.linkTarget;
      path = link.startsWith("/") ? link : posix.join(split(path)[0], link);
      stat = await client.containers.statPath(container, path);
    }
    return { path, exists: true, isDir: has(stat.mode, MODE_DIR) };
  } catch {
    // What is wrong, the upload will be told; its parent may still be there.
    return { path: target, exists: false, isDir: false };
  }
}
