// Which runtime makes a container: ours, in this process, or a program with runc's command line, as the task's options say.
import { basename } from "node:path";
import { fromBinary } from "@bufbuild/protobuf";
import type { Any } from "@bufbuild/protobuf/wkt";
import { type Options, OptionsSchema } from "../gen/containerd/runc/v1_pb.ts";
import { invalidArgument } from "../lib/errors.ts";
import type { Runtime } from "../runtime/face.ts";

/** What a task remembers of its runtime; undefined: ours. */
export interface Driver {
  binary: string;
  root: string;
  systemdCgroup: boolean;
  noPivot: boolean;
  noNewKeyring: boolean;
}

/** The root that containerd gives runc where the options name none. */
const RUNC_ROOT = "/run/containerd/runc";

/** Reads a task's options. An empty or unknown kind of options chooses the default: ours, or what JUBAKO_SHIM_RUNTIME names. */
export async function chooseDriver(options: Any | undefined, namespace: string): Promise<Driver | undefined> {
  let parsed: Options | undefined;
  if (options && options.value.length > 0 && options.typeUrl.endsWith(OptionsSchema.typeName)) {
    try {
      parsed = fromBinary(OptionsSchema, options.value);
    } catch (error) {
      throw invalidArgument(`the task's options are not a valid ${OptionsSchema.typeName}: ${(error as Error).message}`);
    }
  }
  const name = parsed?.binaryName || process.env.JUBAKO_SHIM_RUNTIME || "";
  if (name === "" || basename(name) === "jubako-runtime") return undefined;
  const { findProgram } = await import("../lib/find-program.ts");
  const binary = findProgram(name);
  if (!binary) throw invalidArgument(`the OCI runtime ${JSON.stringify(name)} is not an executable file in $PATH`);
  return {
    binary,
    root: `${parsed?.root || RUNC_ROOT}/${namespace}`,
    systemdCgroup: parsed?.systemdCgroup ?? false,
    noPivot: parsed?.noPivotRoot ?? false,
    noNewKeyring: parsed?.noNewKeyring ?? false,
  };
}

let own: Promise<Runtime> | undefined;

export async function runtimeOf(driver: Driver | undefined): Promise<Runtime> {
  if (driver) return (await import("./runc-driver.ts")).runcRuntime(driver);
  own ??= import("../runtime/index.ts").then((runtime) => runtime.createRuntime());
  return own;
}
