// seccomp: config.json's seccomp section on standard input, its BPF program on standard output. For processes of ours that can't call libseccomp.
import { readFileSync, writeSync } from "node:fs";
import type { Seccomp } from "../../oci/runtime-spec.ts";
import { compile } from "../seccomp-compile.ts";
import type { Context } from "./context.ts";

export async function seccomp(_context: Context, _argv: string[]): Promise<number> {
  const program = compile(JSON.parse(readFileSync(0, "utf8")) as Seccomp);
  for (let done = 0; done < program.length; ) done += writeSync(1, program, done);
  return 0;
}
