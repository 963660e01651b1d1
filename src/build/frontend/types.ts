// What a door gives to the Dockerfile frontend, and what it may ask for.
import type { Definition } from "../../gen/pb_pb.ts";
import type { BuildHost } from "../host.ts";
import type { WarningEvent } from "../progress.ts";
import type { BuildSession } from "../session.ts";

export interface FrontendRequest {
  /** "dockerfile.v0", "gateway.v0" with a `source` that is a Dockerfile frontend, or "". Anything else is Unimplemented. */
  name: string;
  /**
   * As buildx and buildctl send them: filename, target, context, build-arg:NAME, label:NAME, platform, context:NAME, add-hosts, no-cache, image-resolve-mode,
   * shm-size, ulimit, cgroup-parent, force-network-mode, hostname, attest:KIND, multi-platform, requestid, … Names that are not known are not looked at.
   */
  attrs: Readonly<Record<string, string>>;
  /** Definitions that the client gave beside the attributes ("context", "dockerfile", names of contexts: input:NAME). */
  inputs?: ReadonlyMap<string, Definition>;
  /** Where what is made of the Dockerfile is loaded; nothing of it is executed but what the frontend must read. */
  session: Pick<BuildSession, "load">;
  host: Pick<BuildHost, "resolveImage" | "ociLayout">;
  signal: AbortSignal;
  onWarning(warning: WarningEvent): void;
}
