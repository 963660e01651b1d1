// Compiles the seccomp section of config.json to BPF, by libseccomp where there is one.
import { Failure } from "../lib/errors.ts";
import type { Seccomp } from "../oci/runtime-spec.ts";

export function compileSeccomp(seccomp: Seccomp): { program: Uint8Array; flags: number } | undefined {
  throw new Failure("Unimplemented", `seccomp ${seccomp.defaultAction}`);
}
