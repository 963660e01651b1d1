// What a build is given on the command line: a directory, an address, or standard input; and where the Dockerfile is.
import { mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { basename, dirname, isAbsolute, join, relative, resolve } from "node:path";
import { isRemote } from "./parse.ts";

export interface BuildContext {
  /** A directory of ours; undefined: `remote` says where it is. */
  directory: string | undefined;
  remote: string | undefined;
  dockerfile: {
    /** Where the Dockerfile is looked for; undefined: in the remote context. */
    directory: string | undefined;
    name: string;
  };
  /** Takes away what was unpacked for this build. */
  remove(): void;
}

/** Standard input may not be longer where it is a Dockerfile. */
const MAX_DOCKERFILE = 4 << 20;

async function readAll(): Promise<Buffer> {
  const { inputChunks } = await import("../terminal/input.ts");
  const chunks: Uint8Array[] = [];
  for await (const chunk of inputChunks(0)) chunks.push(chunk);
  return Buffer.concat(chunks);
}

function isTar(bytes: Buffer): boolean {
  if (bytes.length < 512) return false;
  let sum = 8 * 0x20;
  for (let i = 0; i < 512; i++) if (i < 148 || i >= 156) sum += bytes[i]!;
  return Number.parseInt(bytes.toString("latin1", 148, 156).replace(/[\0 ]/g, " ").trim(), 8) === sum && sum > 8 * 0x20;
}

/** The modules are loaded here, as few builds need them. */
function plain(bytes: Buffer): Buffer {
  if (bytes[0] === 0x1f && bytes[1] === 0x8b) return process.getBuiltinModule("node:zlib").gunzipSync(bytes);
  if (bytes.length > 4 && bytes.readUInt32LE(0) === 0xfd2fb528) return process.getBuiltinModule("node:zlib").zstdDecompressSync(bytes);
  return bytes;
}

export async function openContext(argument: string, file: string): Promise<BuildContext> {
  const made: string[] = [];
  const temporary = () => {
    const directory = mkdtempSync(join(process.getBuiltinModule("node:os").tmpdir(), "jubako-context-"));
    made.push(directory);
    return directory;
  };
  const remove = () => {
    for (const directory of made) rmSync(directory, { recursive: true, force: true });
  };
  try {
    if (argument === "-" && file === "-") throw new Error("invalid argument: can't use stdin for both build context and dockerfile");
    /** A Dockerfile from standard input has a directory of its own. */
    const alone = (text: Buffer) => {
      if (text.length > MAX_DOCKERFILE) throw new Error(`the Dockerfile on standard input is longer than ${MAX_DOCKERFILE} bytes`);
      const directory = temporary();
      writeFileSync(join(directory, "Dockerfile"), text);
      return { directory, name: "Dockerfile" };
    };
    if (argument === "-") {
      const bytes = plain(await readAll());
      if (bytes.length === 0) throw new Error("no build context: standard input is empty");
      if (!isTar(bytes)) return { directory: temporary(), remote: undefined, dockerfile: alone(bytes), remove };
      const directory = temporary();
      const { unpack } = await import("../tar/unpack.ts");
      await unpack(
        (async function* () {
          yield bytes;
        })(),
        directory,
      );
      const path = resolve(directory, file || "Dockerfile");
      return { directory, remote: undefined, dockerfile: { directory: dirname(path), name: basename(path) }, remove };
    }
    if (isRemote(argument) && !statSync(argument, { throwIfNoEntry: false })) {
      const dockerfile = file === "-" ? alone(await readAll()) : { directory: undefined, name: file || "Dockerfile" };
      return { directory: undefined, remote: argument, dockerfile, remove };
    }
    const stat = statSync(argument, { throwIfNoEntry: false });
    if (!stat) throw new Error(`unable to prepare context: path ${JSON.stringify(argument)} not found`);
    if (!stat.isDirectory()) throw new Error(`unable to prepare context: ${argument} is not a directory`);
    const directory = resolve(argument);
    if (file === "-") return { directory, remote: undefined, dockerfile: alone(await readAll()), remove };
    const path = file === "" ? join(directory, "Dockerfile") : isAbsolute(file) ? file : resolve(file);
    const name = file !== "" && !statSync(path, { throwIfNoEntry: false }) ? join(directory, file) : path;
    if (!statSync(name, { throwIfNoEntry: false }) && !statSync(join(dirname(name), "dockerfile"), { throwIfNoEntry: false }))
      throw new Error(
        `unable to prepare context: unable to evaluate symlinks in Dockerfile path: lstat ${name}: no such file or directory`,
      );
    return { directory, remote: undefined, dockerfile: { directory: dirname(name), name: basename(name) }, remove };
  } catch (error) {
    remove();
    throw error;
  }
}

/** The Dockerfile's path in the context; undefined where it is outside. */
export function pathWithin(context: string, dockerfile: { directory: string | undefined; name: string }): string | undefined {
  const path = relative(context, join(dockerfile.directory ?? context, dockerfile.name));
  return path.startsWith("..") || isAbsolute(path) ? undefined : path;
}
