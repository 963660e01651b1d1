// Which shim, with which OCI runtime, keeps a container: --runtime by name.
import { create, toBinary } from "@bufbuild/protobuf";
import { type Any, AnySchema } from "@bufbuild/protobuf/wkt";
import { OptionsSchema } from "../../gen/containerd/runc/v1_pb.ts";
import { invalidArgument } from "../../lib/errors.ts";
import type { EngineConfig } from "../context.ts";

const OWN = "io.containerd.jubako.v1";

const own = { name: OWN };

export function runtimeOf(config: EngineConfig, name: string | null | undefined): { name: string; options?: Any } {
  const wanted = name || config.defaultRuntime;
  const configured = config.runtimes[wanted];
  if (!configured) {
    if (wanted === "jubako") return own;
    if (wanted.startsWith("io.containerd.")) return { name: wanted };
    throw invalidArgument(`unknown or invalid runtime name: ${wanted}`);
  }
  if (configured.runtimeType) return { name: configured.runtimeType };
  return { name: OWN, options: runcOptions(configured.path ?? wanted) };
}

function runcOptions(binaryName: string): Any {
  const options = create(OptionsSchema, { binaryName });
  return create(AnySchema, { typeUrl: "containerd.runc.v1.Options", value: toBinary(OptionsSchema, options) });
}
