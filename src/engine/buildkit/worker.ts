// What we say of ourselves to BuildKit's clients: one worker, this machine.
import { networkInterfaces } from "node:os";
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { BuildkitVersionSchema, WorkerRecordSchema } from "../../gen/moby/buildkit/v1/types_pb.ts";
import { hostPlatform } from "../../oci/index.ts";
import type { Engine } from "../context.ts";
import { VERSION } from "../version.ts";

const GATEWAY_MS = 10_000;

/** The version whose protocol we speak: clients choose what they ask by it. */
export const BUILDKIT: MessageInitShape<typeof BuildkitVersionSchema> = {
  package: "jubako",
  version: "v0.27.0",
  revision: VERSION,
  dockerfileVersion: "1.20.0",
};

/** An address of this host that containers reach: --add-host NAME:host-gateway. */
let gateway: { address: string; at: number } | undefined;

function hostGateway(engine: Engine): string {
  // Clients ask several times for each build, and a list of all interfaces takes a millisecond.
  if (!gateway || Date.now() - gateway.at > GATEWAY_MS) gateway = { address: findGateway(engine), at: Date.now() };
  return gateway.address;
}

function findGateway(engine: Engine): string {
  const bridge = networkInterfaces()[engine.config.bridge]?.find(({ family }) => family === "IPv4");
  return bridge?.address ?? engine.config.bip?.split("/")[0] ?? "";
}

export function workerRecord(engine: Engine): MessageInitShape<typeof WorkerRecordSchema> {
  const { os, architecture, variant = "" } = hostPlatform();
  const address = hostGateway(engine);
  return {
    ID: engine.id,
    Labels: {
      "org.mobyproject.buildkit.worker.executor": "containerd",
      "org.mobyproject.buildkit.worker.hostname": engine.id,
      "org.mobyproject.buildkit.worker.network": "bridge",
      "org.mobyproject.buildkit.worker.snapshotter": engine.manager.snapshotter,
      "org.mobyproject.buildkit.worker.containerd.namespace": "moby",
      ...(address ? { "org.mobyproject.buildkit.worker.moby.host-gateway-ip": address } : {}),
    },
    platforms: [{ OS: os, Architecture: architecture, Variant: variant }],
    BuildkitVersion: BUILDKIT,
  };
}
