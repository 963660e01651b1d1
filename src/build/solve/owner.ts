// "user:group" of COPY --chown as numbers, by the tree's own /etc/passwd and /etc/group.
import type { ChownOpt } from "../../gen/pb_pb.ts";
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

const numeric = (id: number, what: string): number => {
  if (id > MAX_ID) throw invalidArgument(`${what}s must be in range 0-${MAX_ID}`);
  return id;
};

/** Owner and group; a name is looked up below `root`. InvalidArgument where it is unknown. */
export function ownerOf({ user, group }: ChownOpt, root: number): { uid: number; gid: number } {
  const unknownName = (what: "uid" | "gid", name: string) => {
    const kind = what === "uid" ? "user" : "group";
    return invalidArgument(
      `unable to convert uid/gid chown string to host mapping: can't find ${what} for ${kind} ${name}: no such ${kind}: ${name}`,
    );
  };
  let owner = { uid: 0, gid: 0 };
  // a number alone is its own group, as Docker has it for --chown
  if (user?.user.case === "byID") owner = { uid: numeric(user.user.value, "uid"), gid: user.user.value };
  else if (user?.user.case === "byName") {
    const { name } = user.user.value;
    const found = idOf(name, textOf(root, "etc/passwd"), "uid");
    if (!found) throw unknownName("uid", name);
    owner = { uid: found.id, gid: found.group };
  }
  if (group?.user.case === "byID") owner.gid = numeric(group.user.value, "gid");
  else if (group?.user.case === "byName") {
    const { name } = group.user.value;
    const found = idOf(name, textOf(root, "etc/group"), "gid");
    if (!found) throw unknownName("gid", name);
    owner.gid = found.id;
  }
  return owner;
}
