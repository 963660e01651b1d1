// "user:group" of COPY --chown as numbers, by the tree's own /etc/passwd and /etc/group.
import { invalidArgument } from "../../lib/errors.ts";
import { textOf } from "./tree.ts";

const MAX_ID = 2 ** 31 - 1;

function idOf(text: string, file: string, what: string): { id: number; group: number } | undefined {
  for (const line of file.split("\n")) {
    const [name, , id, group] = line.split(":");
    if (name === text && id !== undefined && /^\d+$/.test(id)) return { id: Number(id), group: Number(group) || 0 };
  }
  if (!/^\d+$/.test(text)) return undefined;
  const id = Number(text);
  if (id > MAX_ID) throw invalidArgument(`${what}s must be in range 0-${MAX_ID}`);
  // a number alone is its own group, as Docker has it for --chown
  return { id, group: id };
}

/** InvalidArgument where a name is unknown. */
export function ownerOf(text: string, root: number): { uid: number; gid: number } {
  const [user = "", group] = text.split(":");
  const found = user === "" ? { id: 0, group: 0 } : idOf(user, textOf(root, "etc/passwd"), "uid");
  if (!found)
    throw invalidArgument(`unable to convert uid/gid chown string to host mapping: can't find uid for user ${user}: no such user: ${user}`);
  if (group === undefined || group === "") return { uid: found.id, gid: found.group };
  const gid = idOf(group, textOf(root, "etc/group"), "gid");
  if (!gid)
    throw invalidArgument(
      `unable to convert uid/gid chown string to host mapping: can't find gid for group ${group}: no such group: ${group}`,
    );
  return { uid: found.id, gid: gid.id };
}
