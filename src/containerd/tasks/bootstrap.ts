// Starting a shim, as runtime v2 has it: `SHIM -namespace … -id … -address … -publish-binary … start` in the bundle prints the address of its
// socket, plain or as JSON; `… delete` tidies up after a shim that died.
import { spawn } from "node:child_process";
import { fstatSync, readSync, writeSync } from "node:fs";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { type Any, AnySchema } from "@bufbuild/protobuf/wkt";
import { BootstrapParamsSchema, BootstrapResultSchema, LogLevel } from "../../gen/containerd/runtime/bootstrap/v1_pb.ts";
import { type DeleteResponse, DeleteResponseSchema } from "../../gen/containerd/task/v2_pb.ts";
import { Failure, unavailable, unimplemented } from "../../lib/errors.ts";
import { binding, check, close, SYS } from "../../linux/index.ts";
import { VERSION } from "../version.ts";

export interface ShimProgram {
  /** The program and arguments before the flags. */
  argv: string[];
  namespace: string;
  id: string;
  /** The manager's gRPC address, and the ttrpc one, which takes events. */
  address: string;
  ttrpcAddress: string;
  /** The working directory. */
  bundle: string;
  options?: Any | undefined;
  debug?: boolean;
}

export interface Bootstrap {
  /** unix:///… */
  address: string;
  /** Version of the task service: 2 or 3. */
  version: number;
}

const START_MS = 10_000;
const OUTPUT_LIMIT = 64 << 10;

/** Since containerd 2.3 a shim reads BootstrapParams on standard input; those before read the runtime's options there, or nothing. */
export async function startShim(program: ShimProgram): Promise<Bootstrap> {
  const { namespace, id, address, ttrpcAddress, options } = program;
  const parameters = create(BootstrapParamsSchema, {
    instanceId: id,
    namespace,
    logLevel: program.debug ? LogLevel.DEBUG : LogLevel.INFO,
    containerdVersion: VERSION,
    containerdGrpcAddress: address,
    containerdTtrpcAddress: ttrpcAddress,
    containerdBinary: process.execPath,
    extensions: options ? [{ value: options }] : [],
  });
  let answer = await call(program, ["start"], toBinary(BootstrapParamsSchema, parameters));
  if (answer.status !== 0) {
    const second = await call(program, ["start"], options ? toBinary(AnySchema, options) : new Uint8Array(0));
    if (second.status === 0) answer = second;
  }
  const { status, stdout, stderr } = answer;
  if (status !== 0)
    throw new Failure("Unknown", `failed to start shim: ${program.argv[0]}: exit status ${status}: ${stderr || stdout.toString()}`);
  return parseBootstrap(stdout);
}

/** Three generations of answers: a plain address, JSON, and the message BootstrapResult. */
export function parseBootstrap(output: Uint8Array): Bootstrap {
  const text = Buffer.from(output).toString().trim();
  if (text === "") throw unavailable("the shim did not say its address");
  if (/^[a-z+]+:\/\//.test(text)) return { address: text, version: 2 };
  const said: { version?: unknown; address?: unknown; protocol?: unknown } = text.startsWith("{")
    ? JSON.parse(text)
    : fromBinary(BootstrapResultSchema, output);
  if (typeof said.address !== "string" || said.address === "") throw unavailable("the shim did not say its address");
  if (said.protocol !== undefined && said.protocol !== "" && said.protocol !== "ttrpc") {
    throw unimplemented(`shim protocol ${JSON.stringify(said.protocol)}; there is ttrpc`);
  }
  return { address: said.address, version: said.version === 3 ? 3 : 2 };
}

/** After a shim's death: its `delete` kills what is left of the container and says how it ended. */
export async function deleteByShim(program: ShimProgram): Promise<DeleteResponse | undefined> {
  const { status, stdout } = await call(program, ["-bundle", program.bundle, "delete"], new Uint8Array(0)).catch(() => ({
    status: -1,
    stdout: Buffer.alloc(0),
  }));
  if (status !== 0) return undefined;
  try {
    return fromBinary(DeleteResponseSchema, stdout);
  } catch {
    return undefined;
  }
}

interface Answer {
  status: number;
  stdout: Buffer;
  stderr: string;
}

// Standard input and outputs are files in memory: a daemon that the program leaves behind may keep them, and nobody waits for their end.
async function call(program: ShimProgram, command: string[], input: Uint8Array): Promise<Answer> {
  const files = [memoryFile(), memoryFile(), memoryFile()] as const;
  try {
    if (input.length > 0) writeSync(files[0], input, 0, input.length, 0);
    const status = await runProgram(program, command, [...files]);
    return { status, stdout: contentOf(files[1]), stderr: contentOf(files[2]).toString().trim() };
  } finally {
    for (const file of files) close(file);
  }
}

function memoryFile(): number {
  const MFD_CLOEXEC = 1;
  return check(binding.syscall(SYS.memfd_create, "shim", MFD_CLOEXEC), "memfd_create");
}

function contentOf(file: number): Buffer {
  const buffer = Buffer.alloc(Math.min(fstatSync(file).size, OUTPUT_LIMIT));
  return buffer.subarray(0, readSync(file, buffer, 0, buffer.length, 0));
}

function runProgram(program: ShimProgram, command: string[], stdio: number[]): Promise<number> {
  const args = ["-namespace", program.namespace, "-id", program.id, "-address", program.address];
  args.push("-publish-binary", process.execPath);
  if (program.debug) args.push("-debug");
  const [file, ...before] = program.argv;
  return new Promise((resolve, reject) => {
    const child = spawn(file!, [...before, ...args, ...command], {
      cwd: program.bundle,
      env: {
        ...process.env,
        NAMESPACE: program.namespace,
        TTRPC_ADDRESS: program.ttrpcAddress,
        GRPC_ADDRESS: program.address,
        MAX_SHIM_VERSION: "2",
        GOMAXPROCS: "2",
      },
      stdio,
    });
    const timer = setTimeout(() => {
      child.kill("SIGKILL");
      reject(new Failure("DeadlineExceeded", `the shim ${file} did not answer "${command.at(-1)}" within ${START_MS / 1000} s`));
    }, START_MS);
    child.on("error", (error) => {
      clearTimeout(timer);
      reject(new Failure("Unknown", `failed to start shim: ${error.message}`));
    });
    child.on("exit", (code) => {
      clearTimeout(timer);
      resolve(code ?? 255);
    });
  });
}
