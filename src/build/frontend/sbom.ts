// SBOM attestations (BuildKit docs, "SBOM scanning protocol"): a scanner image reads the tree that was built and writes in-toto statements.
import type { MessageInitShape } from "@bufbuild/protobuf";
import { type ExecOpSchema, MountType, NetMode, SecurityMode } from "../../gen/pb_pb.ts";
import { failedPrecondition } from "../../lib/errors.ts";
import { hostPlatform } from "../../oci/index.ts";
import type { Attestation } from "../session.ts";
import { imageOutput } from "./context.ts";
import type { Marshaller, Output } from "./nodes.ts";
import type { FrontendOptions } from "./options.ts";
import type { FrontendRequest } from "./types.ts";

const SOURCE = "/run/src/core/sbom";
const DESTINATION = "/run/out";

export async function attestSbom(
  request: FrontendRequest,
  options: FrontendOptions,
  sbom: NonNullable<FrontendOptions["sbom"]>,
  target: Output | undefined,
  marshaller: Marshaller,
): Promise<Attestation> {
  const image = await request.host.resolveImage(sbom.generator, undefined, options.resolveMode);
  const { Entrypoint, Cmd, Env, WorkingDir } = image.config;
  const args = [...(Entrypoint ?? []), ...(Cmd ?? [])];
  if (args.length === 0) throw failedPrecondition(`scanner ${sbom.generator} does not have cmd`);
  const scanner = imageOutput(sbom.generator, image, hostPlatform(), `[internal] sbom generator ${sbom.generator}`, options.resolveMode);
  const extra = Object.entries(sbom.attrs).map(([name, value]) => `BUILDKIT_SCAN_${name.toUpperCase().replace(/-/g, "_")}=${value}`);
  const inputs = target ? [scanner, target] : [scanner];
  const exec: MessageInitShape<typeof ExecOpSchema> = {
    meta: {
      args,
      env: [...(Env ?? []), `BUILDKIT_SCAN_SOURCE=${SOURCE}`, `BUILDKIT_SCAN_DESTINATION=${DESTINATION}`, ...extra],
      cwd: WorkingDir || "/",
      user: "",
    },
    mounts: [
      { input: 0n, output: -1n, dest: "/", mountType: MountType.BIND },
      { input: target ? 1n : -1n, output: -1n, dest: SOURCE, mountType: MountType.BIND, readonly: true },
      { input: -1n, output: 0n, dest: DESTINATION, mountType: MountType.BIND },
    ],
    network: NetMode.UNSET,
    security: SecurityMode.SANDBOX,
  };
  const output: Output = {
    node: {
      op: { case: "exec", value: exec as never },
      inputs,
      platform: hostPlatform(),
      meta: { name: `[internal] generating sbom using ${sbom.generator}` },
    },
    index: 0,
  };
  return {
    kind: "bundle",
    ref: request.session.load(marshaller.definition(output)),
    path: "/",
    metadata: new Map([["result-reason", Buffer.from("sbom")]]),
    predicateType: "",
    subjects: [],
  };
}
