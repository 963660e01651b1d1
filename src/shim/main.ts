// The command line of containerd-shim-jubako-v1, as containerd calls shims (containerd, core/runtime/v2/README.md):
//
//   containerd-shim-jubako-v1 -namespace NS -address ADDR [-publish-binary BIN] -id ID [-bundle DIR] [-debug] start|delete
//   containerd-shim-jubako-v1 -v | -info
//
// and, of our own, `serve`: the process that `start` leaves running (its socket is descriptor 3).
import { fstatSync, readdirSync, readFileSync, rmSync, writeFileSync, writeSync } from "node:fs";
import { isatty } from "node:tty";
import { invalidArgument, messageOf } from "../lib/errors.ts";
import { close } from "../linux/index.ts";
import { adjustOomScore, alive, anyPending, clearPending, type Group, groupOf, lock, setPending, startDaemon, tryLock } from "./group.ts";

/** Also a file name. */
const ID = /^[A-Za-z0-9][A-Za-z0-9_.:-]{0,200}$/;
const VERSION = "0.1.0";
const NAME = "containerd-shim-jubako-v1";

interface Flags {
  namespace: string;
  address: string;
  id: string;
  bundle: string;
  state: string;
  debug: boolean;
  keep: boolean;
  version: boolean;
  info: boolean;
  command: string;
}

const valued = new Set(["namespace", "address", "publish-binary", "id", "bundle", "socket", "state"]);
const switches: Record<string, "debug" | "keep" | "version" | "info"> = { debug: "debug", keep: "keep", v: "version", info: "info" };

/** Flags as Go's flag package reads them: one dash or two, value after a space or "=". */
export function parseFlags(argv: string[]): Flags {
  const flags: Flags = {
    namespace: "",
    address: "",
    id: "",
    bundle: "",
    state: "",
    debug: false,
    keep: false,
    version: false,
    info: false,
    command: "",
  };
  let i = 0;
  for (; i < argv.length; i++) {
    const match = /^--?([a-z-]+)(?:=(.*))?$/s.exec(argv[i]!);
    if (!match) break;
    const name = match[1]!;
    const on = switches[name];
    if (on) flags[on] = match[2] !== "false";
    else if (valued.has(name)) {
      const value = match[2] ?? argv[++i];
      if (value === undefined) throw invalidArgument(`flag needs an argument: -${name}`);
      if (name === "namespace" || name === "address" || name === "id" || name === "bundle" || name === "state") flags[name] = value;
    } else throw invalidArgument(`flag provided but not defined: -${name}`);
  }
  flags.command = argv[i] ?? "";
  return flags;
}

export async function main(argv: string[]): Promise<number> {
  try {
    const flags = parseFlags(argv);
    if (flags.version) {
      process.stdout.write(`${NAME}:\n  Version:  ${VERSION}\n`);
      return 0;
    }
    if (flags.info) return await info();
    if (!flags.namespace) throw invalidArgument("shim namespace cannot be empty");
    if (flags.command === "serve") return await serve(flags);
    if (!ID.test(flags.id)) throw invalidArgument(`task id ${JSON.stringify(flags.id)} is not a valid identifier`);
    if (flags.command === "start") return await start(flags);
    if (flags.command === "delete") return await remove(flags);
    throw invalidArgument(`unknown command ${JSON.stringify(flags.command)}: start and delete are known`);
  } catch (error) {
    process.stderr.write(`${NAME}: ${messageOf(error)}\n`);
    return 1;
  }
}

/** What the caller wrote on standard input; empty where that is a terminal or closed. */
function input(): Buffer {
  try {
    if (isatty(0) || fstatSync(0).isCharacterDevice()) return Buffer.alloc(0);
    return readFileSync(0);
  } catch {
    return Buffer.alloc(0);
  }
}

function output(bytes: Uint8Array | string): void {
  const buffer = Buffer.from(bytes as string);
  for (let done = 0; done < buffer.length; ) done += writeSync(1, buffer, done);
}

/** Since containerd 2.3 the caller sends BootstrapParams and reads BootstrapResult; before, it reads the bare address. */
async function start(flags: Flags): Promise<number> {
  if (!flags.address) throw invalidArgument("shim address cannot be empty");
  const group = groupOf(flags);
  const sent = input();
  const held = await lock(group);
  try {
    setPending(group, flags.id);
    if (!alive(group)) {
      adjustOomScore();
      startDaemon(group, {
        namespace: flags.namespace,
        address: flags.address,
        ttrpc: process.env.TTRPC_ADDRESS,
        debug: flags.debug,
        keep: flags.keep,
      });
    }
  } finally {
    close(held);
  }
  // containerd up to 1.7 looks here for the shim after a restart. The current directory is the bundle.
  writeFileSync("address", group.address);
  output(await answer(sent, flags, group));
  return 0;
}

async function answer(sent: Uint8Array, flags: Flags, group: Group): Promise<Uint8Array | string> {
  if (sent.length === 0) return group.address;
  const { create, fromBinary, toBinary } = await import("@bufbuild/protobuf");
  const { BootstrapParamsSchema, BootstrapResultSchema } = await import("../gen/containerd/runtime/bootstrap/v1_pb.ts");
  try {
    const params = fromBinary(BootstrapParamsSchema, sent);
    if (params.instanceId === flags.id && params.namespace === flags.namespace)
      return toBinary(BootstrapResultSchema, create(BootstrapResultSchema, { version: 3, address: group.address, protocol: "ttrpc" }));
  } catch {
    // the older form: runtime options as an Any
  }
  return group.address;
}

/** Cleans up after a task whose shim is dead, and says how it ended. A shim that lives is asked to do it. */
async function remove(flags: Flags): Promise<number> {
  const { create, toBinary } = await import("@bufbuild/protobuf");
  const { DeleteResponseSchema } = await import("../gen/containerd/task/v2_pb.ts");
  const group = groupOf(flags);
  const held = await lock(group);
  let response: { pid: number; exitStatus: number; exitedAt?: { seconds: bigint; nanos: number } };
  try {
    clearPending(group, flags.id);
    const { removeDead, removeLiving } = await import("./remove.ts");
    const living = alive(group);
    response = living ? await removeLiving(group, flags.id) : await removeDead(group, flags.namespace, flags.id);
    if (!living && readdirSync(`${group.dir}/c`).length === 0) rmSync(group.dir, { recursive: true, force: true });
  } finally {
    close(held);
  }
  output(toBinary(DeleteResponseSchema, create(DeleteResponseSchema, response)));
  return 0;
}

async function info(): Promise<number> {
  const { create, toBinary } = await import("@bufbuild/protobuf");
  const { RuntimeInfoSchema } = await import("../gen/containerd/types_pb.ts");
  output(toBinary(RuntimeInfoSchema, create(RuntimeInfoSchema, { name: "io.containerd.jubako.v1", version: { version: VERSION } })));
  return 0;
}

/** Runs until the last task is deleted and a Shutdown asks for it. */
async function serve(flags: Flags): Promise<number> {
  const group: Group = { dir: flags.state, socket: `${flags.state}/sock`, address: `unix://${flags.state}/sock` };
  const { serveShim } = await import("./serve.ts");
  process.chdir("/");
  // A defect in one call must not take the others' containers out of sight.
  for (const kind of ["uncaughtException", "unhandledRejection"] as const)
    process.on(kind, (error: unknown) =>
      process.stderr.write(`${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`),
    );
  return new Promise((resolve) => {
    const end = async (id: string): Promise<void> => {
      if (ID.test(id)) clearPending(group, id);
      // Whoever holds the lock is about to hand out our address.
      const held = tryLock(group);
      if (held === undefined) return;
      const shim = await serving;
      if (shim.size() > 0 || anyPending(group, readdirSync(`${group.dir}/pending`))) return close(held);
      await shim.close();
      rmSync(group.dir, { recursive: true, force: true });
      resolve(0);
    };
    const serving = serveShim({
      namespace: flags.namespace,
      state: group.dir,
      listen: 3,
      events: process.env.TTRPC_ADDRESS,
      onCreate: (id) => clearPending(group, id),
      onShutdown: flags.keep ? undefined : (id) => void end(id),
    });
    serving.catch((error) => {
      process.stderr.write(`${messageOf(error)}\n`);
      resolve(1);
    });
  });
}

if (import.meta.main) main(process.argv.slice(2)).then((status) => process.exit(status));
