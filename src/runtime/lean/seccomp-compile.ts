// In the place of src/runtime/seccomp-compile.ts: the lean host calls no libraries. What Bun has compiled once is found by both (seccomp.ts).
import { lacking } from "./host.ts";

export const compileProgram = (): never => lacking("libseccomp");
