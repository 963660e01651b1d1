// The seccomp profile of a container: Docker's default one resolved for its capabilities, the user's own, or none.
import { invalidArgument, messageOf } from "../../lib/errors.ts";
import type { Seccomp } from "../../oci/runtime-spec.ts";

type Resolve = (profile: unknown, options: { capabilities: string[] }) => Seccomp;

let loading: Promise<Resolve> | undefined;

function resolver(): Promise<Resolve> {
  loading ??= import("../../runtime/index.ts").then((module) => module.resolveDockerSeccomp as Resolve);
  return loading;
}

/** Resolved default profiles by capability set: there are few. */
const defaults = new Map<string, Seccomp>();

export async function seccompFor(option: string, capabilities: string[]): Promise<Seccomp | undefined> {
  if (option === "unconfined") return undefined;
  if (option !== "") {
    let profile: unknown;
    try {
      profile = JSON.parse(option);
    } catch (error) {
      throw invalidArgument(`Decoding seccomp profile failed: ${messageOf(error)}`);
    }
    return (await resolver())(profile, { capabilities });
  }
  const key = capabilities.join();
  let resolved = defaults.get(key);
  if (!resolved) {
    resolved = (await resolver())(undefined, { capabilities });
    defaults.set(key, resolved);
  }
  return resolved;
}
