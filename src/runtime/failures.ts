// Sentences for what failed: a step of a tape with its errno, in the words runc has where callers look for them.
import { Failure } from "../lib/errors.ts";
import { errno, errnoName, errnoText, SYS } from "../linux/index.ts";
import type { Process } from "../oci/runtime-spec.ts";
import type { Plan } from "./plan/create.ts";
import { type Arg, stepText } from "./tape.ts";

function kindOf(number: number): "NotFound" | "PermissionDenied" | "Unknown" {
  if (number === errno.ENOENT) return "NotFound";
  return number === errno.EACCES ? "PermissionDenied" : "Unknown";
}

/** The Failure of step `index` of a plan. Docker's callers tell 127 from 126 by these words, as they do with runc's. */
export function stepFailure(plan: Plan, process: Process, index: number, number: number): Failure {
  const step = plan.tape.steps[index];
  if (!step) return new Failure("Unknown", `the player refused its tape: ${errnoName(number)} (${errnoText(number)})`);
  const name = process.args?.[0] ?? "";
  const quoted = JSON.stringify(name);
  if (plan.marks.lookup.has(index)) {
    if (!name.includes("/")) return new Failure("NotFound", `exec: ${quoted}: executable file not found in $PATH`);
    if (number === errno.ENOENT) return new Failure("NotFound", `exec: ${quoted}: stat ${name}: no such file or directory`);
    if (number === errno.EISDIR) return new Failure("PermissionDenied", `exec: ${quoted}: is a directory: permission denied`);
    return new Failure(kindOf(number), `exec: ${quoted}: ${errnoText(number)}`);
  }
  if (index === plan.marks.execve) {
    if (number === errno.ENOENT) {
      return new Failure("NotFound", `exec ${name}: no such file or directory (the file is there, its interpreter or loader is not)`);
    }
    if (number === errno.ENOEXEC)
      return new Failure("Unknown", `exec ${name}: exec format error (not a program for this machine, or a script without #!)`);
    return new Failure(kindOf(number), `exec ${name}: ${errnoText(number)}`);
  }
  if (step.op === "syscall" && step.nr === SYS.chdir && step.why.startsWith("go to the working directory")) {
    return new Failure(kindOf(number), `chdir to cwd (${JSON.stringify(process.cwd)}) set in config.json failed: ${errnoText(number)}`);
  }
  const kernelFiles = number === errno.ELOOP ? /^mount (?:proc|sysfs) on (.*)$/.exec(step.why)?.[1] : undefined;
  if (kernelFiles) return new Failure("InvalidArgument", `filesystem ${step.why}: ${kernelFiles} must be mounted on ordinary directory`);
  const path = pathOf(step.args);
  const where = path && !step.why.includes(path) ? ` (${stepText(step)})` : "";
  return new Failure(number === errno.ENOENT ? "NotFound" : "Unknown", `${step.why}${where}: ${errnoName(number)} (${errnoText(number)})`);
}

function pathOf(args: readonly Arg[]): string | undefined {
  return args.find((a): a is string => typeof a === "string" && a.startsWith("/"));
}
