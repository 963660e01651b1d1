// Programs of other people's, looked for as a shell does.
import { accessSync, constants } from "node:fs";

/** The first executable of that name on PATH; an absolute path stays as it is. Undefined where there is none. */
export function findProgram(
  name: string,
  path = process.env.PATH ?? "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
): string | undefined {
  for (const candidate of name.includes("/") ? [name] : path.split(":").map((dir) => `${dir || "."}/${name}`)) {
    try {
      accessSync(candidate, constants.X_OK);
      return candidate;
    } catch {
      // not there: the next one
    }
  }
  return undefined;
}
