// Config.User and --group-add as numbers, by the container's own /etc/passwd and /etc/group.
import { invalidArgument } from "../../../lib/errors.ts";

export interface ResolvedUser {
  uid: number;
  gid: number;
  additionalGids: number[];
  home: string;
}

interface Account {
  name: string;
  uid: number;
  gid: number;
  home: string;
}

interface Group {
  name: string;
  gid: number;
  members: string[];
}

const MAX_ID = 2 ** 31 - 1;

function accounts(passwd: string): Account[] {
  return passwd.split("\n").flatMap((line) => {
    const [name, , uid, gid, , home] = line.split(":");
    return name && uid !== undefined && /^\d+$/.test(uid) && /^\d+$/.test(gid ?? "")
      ? [{ name, uid: Number(uid), gid: Number(gid), home: home || "/" }]
      : [];
  });
}

function groups(group: string): Group[] {
  return group.split("\n").flatMap((line) => {
    const [name, , gid, members] = line.split(":");
    return name && gid !== undefined && /^\d+$/.test(gid)
      ? [{ name, gid: Number(gid), members: (members ?? "").trim().split(",").filter(Boolean) }]
      : [];
  });
}

function numeric(text: string): number | undefined {
  if (!/^\d+$/.test(text)) return undefined;
  const id = Number(text);
  if (id > MAX_ID) throw invalidArgument(`uids and gids must be in range 0-${MAX_ID}`);
  return id;
}

/** `user`: "", "name", "uid", "name:group", "uid:gid". A name that isn't there is an error; a number needs no entry. */
export function resolveUser(user: string, groupAdd: string[], files: { passwd: string; group: string }): ResolvedUser {
  const colon = user.indexOf(":");
  const userPart = colon < 0 ? user : user.slice(0, colon);
  const groupPart = colon < 0 ? "" : user.slice(colon + 1);
  const allAccounts = accounts(files.passwd);
  const allGroups = groups(files.group);

  const number = userPart === "" ? 0 : numeric(userPart);
  const account =
    allAccounts.find((each) => each.name === userPart) ??
    (number === undefined ? undefined : allAccounts.find((each) => each.uid === number));
  if (!account && number === undefined) throw invalidArgument(`unable to find user ${userPart}: no matching entries in passwd file`);
  const result: ResolvedUser = { uid: account?.uid ?? number!, gid: account?.gid ?? 0, additionalGids: [], home: account?.home ?? "/" };

  if (groupPart !== "") {
    const group = allGroups.find((each) => each.name === groupPart);
    const gid = group?.gid ?? numeric(groupPart);
    if (gid === undefined) throw invalidArgument(`unable to find group ${groupPart}: no matching entries in group file`);
    result.gid = gid;
  } else if (account) {
    result.additionalGids = allGroups.filter((each) => each.members.includes(account.name)).map((each) => each.gid);
  }
  // The primary group counts as a supplementary one, too: a file that denies the group must deny it (CVE-2022-36109).
  result.additionalGids = [result.gid, ...result.additionalGids.filter((gid) => gid !== result.gid)];
  for (const name of groupAdd) {
    const gid = allGroups.find((each) => each.name === name)?.gid ?? numeric(name);
    if (gid === undefined) throw invalidArgument(`Unable to find group ${name}`);
    if (!result.additionalGids.includes(gid)) result.additionalGids.push(gid);
  }
  return result;
}
