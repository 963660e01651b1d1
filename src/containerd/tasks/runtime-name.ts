// The name of a runtime → the program that is its shim (containerd's runtime v2 README, "shim authoring"): io.containerd.runc.v2 is
// containerd-shim-runc-v2 on PATH; an absolute path is the shim itself.
import { accessSync, constants } from "node:fs";
import { join } from "node:path";
import { invalidArgument, notFound } from "../../lib/errors.ts";

/** The built-in one: every namespace's containers share one shim, which the manager keeps at hand. */
export const JUBAKO_RUNTIME = "io.containerd.jubako.v1";
const RUNC_RUNTIME = "io.containerd.runc.v2";

function executable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/**
 * "shared": our own shim. Where runc's shim is not installed, ours stands in for it: it understands runc's options, and which OCI runtime they name.
 * NotFound and InvalidArgument as containerd says them.
 */
export function shimOf(runtime: string, path: string | undefined = process.env.PATH): "shared" | { binary: string } {
  if (runtime === JUBAKO_RUNTIME) return "shared";
  if (runtime.startsWith("/")) {
    if (!executable(runtime)) throw notFound(`runtime "${runtime}" binary not installed "${runtime}"`);
    return { binary: runtime };
  }
  const parts = runtime.split(".");
  if (parts.length < 2 || parts.some((part) => !/^[A-Za-z0-9_-]+$/.test(part))) {
    throw invalidArgument(
      `invalid runtime name ${runtime}, correct runtime name should be either format like \`io.containerd.runc.v2\` or a full path to the binary`,
    );
  }
  const name = `containerd-shim-${parts.at(-2)}-${parts.at(-1)}`;
  for (const directory of (path ?? "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin").split(":")) {
    const candidate = join(directory || ".", name);
    if (executable(candidate)) return { binary: candidate };
  }
  if (runtime === RUNC_RUNTIME) return "shared";
  throw notFound(`runtime "${runtime}" binary not installed "${name}"`);
}
