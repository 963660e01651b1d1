// The environment of a program, of process.env.
import { invalidArgument } from "../../lib/errors.ts";
import { MARK } from "./mark.ts";

/** Each variable once, with its last value; `needsHome`: HOME is to be what the container's /etc/passwd says, as an empty one stands for none. */
export function environmentOf(env: readonly string[] = []): { env: string[]; needsHome: boolean } {
  const last = new Map<string, string>();
  for (const entry of env) {
    // It stands for a variable that was looked at.
    if (entry.startsWith(MARK)) {
      last.set(entry, entry);
      continue;
    }
    const equals = entry.indexOf("=");
    if (equals < 0) throw invalidArgument("invalid environment variable: missing '='");
    if (equals === 0) throw invalidArgument("invalid environment variable: name cannot be empty");
    const name = entry.slice(0, equals);
    if (entry.includes("\0")) throw invalidArgument(`invalid environment variable ${JSON.stringify(name)}: contains nul byte (\\x00)`);
    // It moves to where its last value stands.
    last.delete(name);
    last.set(name, entry);
  }
  const home = last.get("HOME");
  const needsHome = home === undefined || home === "HOME=";
  if (needsHome) last.delete("HOME");
  return { env: [...last.values()], needsHome };
}
