// What a vertex' key is made of, part by part, so that a miss can say which part is new. A key is the digest of an operation and of the contents it works on
// (chain ids; for files that are copied, their contents), never of how those came to be: two ways to the same content share what follows.
import { type ExecOp, type FileAction, type Mount, MountType, type Op } from "../../gen/pb_pb.ts";
import { digestOf } from "../../oci/index.ts";
import type { KeyPart } from "../progress.ts";

const plain = (_: string, value: unknown): unknown => {
  if (typeof value === "bigint") return value.toString();
  if (value instanceof Uint8Array) return digestOf(value);
  return value;
};
const textOf = (value: unknown): string => JSON.stringify(value, plain);

export const keyOf = (kind: string, parts: readonly KeyPart[]): string =>
  digestOf(JSON.stringify([kind, parts.map(({ name, value }) => [name, value])]));

function mountText(mount: Mount): string {
  const { selector, readonly } = mount;
  switch (mount.mountType) {
    case MountType.CACHE:
      return textOf(["cache", mount.cacheOpt?.ID, selector, readonly]);
    case MountType.TMPFS:
      return textOf(["tmpfs", mount.TmpfsOpt?.size ?? 0n]);
    case MountType.SECRET:
      return textOf(["secret", mount.secretOpt?.ID, mount.secretOpt?.uid, mount.secretOpt?.gid, mount.secretOpt?.mode]);
    case MountType.SSH:
      return textOf(["ssh", mount.SSHOpt?.ID]);
    default:
      return textOf(["bind", selector, readonly, mount.output]);
  }
}

/** All that an exec operation says; not proxies, nor what secrets hold. */
export function execParts(op: ExecOp): KeyPart[] {
  const meta = op.meta!;
  const parts: KeyPart[] = [
    { name: "command", value: textOf(meta.args) },
    ...meta.env.map((entry) => {
      const equals = entry.indexOf("=", 1);
      return equals < 0
        ? { name: `variable ${entry}`, value: "" }
        : { name: `variable ${entry.slice(0, equals)}`, value: entry.slice(equals + 1) };
    }),
    { name: "working directory", value: meta.cwd },
    { name: "user", value: meta.user },
    { name: "network", value: String(op.network) },
    { name: "security", value: String(op.security) },
  ];
  const more: [string, unknown, boolean][] = [
    ["hostname", meta.hostname, meta.hostname !== ""],
    ["extra hosts", meta.extraHosts.map(({ Host, IP }) => [Host, IP]), meta.extraHosts.length > 0],
    ["ulimits", meta.ulimit.map(({ Name, Soft, Hard }) => [Name, Soft, Hard]), meta.ulimit.length > 0],
    ["valid exit codes", meta.validExitCodes, meta.validExitCodes.length > 0],
    ["secret variables", op.secretenv.map(({ ID, name }) => [ID, name]), op.secretenv.length > 0],
  ];
  for (const [name, value, there] of more) if (there) parts.push({ name, value: textOf(value) });
  for (const mount of op.mounts) if (mount.dest !== "/") parts.push({ name: `mount ${mount.dest}`, value: mountText(mount) });
  return parts;
}

export function actionText({ action }: FileAction): string {
  switch (action.case) {
    case "copy":
      return `copy ${action.value.src} ${action.value.dest}`;
    case "mkdir":
    case "mkfile":
    case "rm":
      return `${action.case} ${action.value.path}`;
    case "symlink":
      return `symlink ${action.value.oldpath} ${action.value.newpath}`;
    default:
      return "";
  }
}

export const actionPart = (action: FileAction, i: number): KeyPart => ({
  name: `action ${i}`,
  value: `${actionText(action)} ${digestOf(textOf([action.input, action.secondaryInput, action.output, action.action]))}`,
});

/** Words for a vertex that has no name. */
export function describeOp({ op }: Op): string {
  switch (op.case) {
    case "exec":
      return (op.value.meta?.args ?? []).join(" ");
    case "source":
      return op.value.identifier;
    case "file":
      return op.value.actions.map(actionText).join(", ");
    default:
      return op.case ?? "";
  }
}
