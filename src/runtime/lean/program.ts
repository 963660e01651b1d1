// The runtime's commands by the lean host (native/lean.c): the same sources, without Bun's start, which takes longer than most of them. What this
// host lacks is found out on the way, by Lacking being thrown: the command undoes what it has begun, as with any failure, and Bun does it instead.
import { binding, readFileSync, SYS, stringVector } from "../../linux/index.ts";
import { main } from "../cli.ts";
import { print } from "../commands/output.ts";
import { RUNTIME_SETTINGS } from "../launcher-settings.ts";
import { Lacking } from "./host.ts";
import { executable } from "./program-command.ts";

const EX_NOT_FOUND = 127;

const end = (status: number) => void binding.syscall(SYS.exit_group, status);

/** Whether it, or what lies beneath, tells of this host and not of the container. What the language lacks here shows as one of the others. */
function isForeign(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  if (error instanceof Lacking || error instanceof TypeError || error instanceof ReferenceError || error instanceof SyntaxError)
    return true;
  return isForeign(error.cause);
}

/** Bun takes this program's place. */
function leave(error: unknown): void {
  if (!isForeign(error)) return;
  const program = executable();
  const strings = (file: string) => readFileSync(`/proc/self/${file}`, "utf8").split("\0").slice(0, -1);
  const argv = stringVector(strings("cmdline"));
  const env = stringVector([...RUNTIME_SETTINGS, ...strings("environ")]);
  binding.syscall(SYS.execve, program, argv.pointers, env.pointers);
  void [argv.keep, env.keep];
  print(2, `jubako-runtime: ${program} can't be run, which this takes: ${(error as Error).message}\n`);
  end(EX_NOT_FOUND);
}

main(process.argv.slice(2), leave).then(end, (error: unknown) => {
  leave(error);
  print(2, `jubako-runtime: ${String(error)}\n`);
  end(1);
});
