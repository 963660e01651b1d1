// Makes a place inside a container's root that lies behind a symbolic link to nothing, as mkdir -p would there: link by link, every step below the
// root's descriptor, so that no link of the image leads out.
import { Failure } from "../lib/errors.ts";
import {
  AT_SYMLINK_NOFOLLOW,
  binding,
  check,
  close,
  errno,
  O_DIRECTORY,
  O_NOFOLLOW,
  O_PATH,
  openat2,
  pidfdGetfd,
  RESOLVE_IN_ROOT,
  RESOLVE_NO_MAGICLINKS,
  SYS,
  SystemError,
  textOf,
} from "../linux/index.ts";
import type { Plan } from "./plan/create.ts";

const S_IFREG = 0o100000;
const MAX_LINKS = 40;
const PATH_MAX = 4096;

/** Answers a process' report of the kind `missing`; it then opens the place as if it had always been there. */
export function makeMissing(plan: Pick<Plan, "missing" | "owner">, pidfd: number, { index, root }: { index: number; root: number }): void {
  const wanted = plan.missing[index];
  if (!wanted) throw new Failure("Unknown", `the player asks for the place ${index}, which its plan has not`);
  const fd = pidfdGetfd(pidfd, root);
  try {
    makeInRoot(fd, wanted.path, wanted.kind, plan.owner);
  } finally {
    close(fd);
  }
}

/** The place's own path below the root, without links. */
export function makeInRoot(root: number, path: string, kind: "directory" | "file", owner?: { uid: number; gid: number }): string {
  const within = { resolve: RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS };
  const todo = path.split("/");
  let links = 0;
  // Without links, as every part of it was looked at.
  let here: string[] = [];
  while (todo.length > 0) {
    const name = todo.shift()!;
    if (name === "" || name === ".") continue;
    if (name === "..") {
      here.pop();
      continue;
    }
    const parent = openat2(root, `/${here.join("/")}`, O_PATH | O_DIRECTORY, within);
    try {
      const target = lookAt(parent, name);
      if (target === undefined) {
        const file = kind === "file" && todo.every((rest) => rest === "" || rest === ".");
        const made = file
          ? binding.syscall(SYS.mknodat, parent, name, S_IFREG | 0o755, 0)
          : binding.syscall(SYS.mkdirat, parent, name, 0o755);
        if (made !== -errno.EEXIST) {
          check(made, `make ${path}`);
          if (owner) binding.syscall(SYS.fchownat, parent, name, owner.uid, owner.gid, AT_SYMLINK_NOFOLLOW);
        }
        here.push(name);
      } else if (target === "") here.push(name);
      else {
        if (++links > MAX_LINKS) throw new SystemError(`make ${path}`, errno.ELOOP);
        if (target.startsWith("/")) here = [];
        todo.unshift(...target.split("/"));
      }
    } finally {
      close(parent);
    }
  }
  return `/${here.join("/")}`;
}

/** Where a symbolic link leads; "" for what is none, undefined for what is not there. */
function lookAt(parent: number, name: string): string | undefined {
  let fd = -1;
  try {
    fd = openat2(parent, name, O_PATH | O_NOFOLLOW, { resolve: RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS });
    const target = new Uint8Array(PATH_MAX);
    const length = binding.syscall(SYS.readlinkat, fd, "", target, PATH_MAX);
    return length > 0 ? textOf(target.subarray(0, length)) : "";
  } catch (error) {
    if (error instanceof SystemError && error.code === "ENOENT") return undefined;
    throw error;
  } finally {
    close(fd);
  }
}
