// Programs of other people's, looked for as a shell does.
import { isExecutable } from "../linux/index.ts";

/** The first executable of that name on PATH; an absolute path stays as it is. Undefined where there is none. */
export function findProgram(
  name: string,
  path = process.env.PATH ?? "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
): string | undefined {
  const candidates = name.includes("/") ? [name] : path.split(":").map((dir) => `${dir || "."}/${name}`);
  return candidates.find(isExecutable);
}
