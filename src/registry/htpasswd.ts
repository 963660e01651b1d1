// Basic authentication against a file of "user:bcrypt" lines (htpasswd -B). The file is read again when it changes. bcrypt is slow on purpose: a password
// that was right is remembered, as a keyed hash, for a few minutes; whether the user exists makes no difference to the time that a refusal takes.
import { createHmac, randomBytes } from "node:crypto";
import { readFileSync, statSync } from "node:fs";
import type { Authenticator } from "./access.ts";
import { createCache } from "./cache.ts";
import { refuse } from "./errors.ts";

const REMEMBER_MS = 300_000;
const MAX_HEADER = 4096;
const BCRYPT = /^\$2[aby]?\$\d\d\$[./A-Za-z0-9]{53}$/;
/** Compared with where the user is unknown; no password has it. */
const NOBODY = "$2b$10$CwTycUXWue0Thq9StjUM0uJ8z0f6Q1yZ4m3qWc4o1JY0m2e5b8r9K";

export function parseHtpasswd(text: string): { users: Map<string, string>; refused: string[] } {
  const users = new Map<string, string>();
  const refused: string[] = [];
  for (const line of text.split(/\r?\n/)) {
    const trimmed = line.trim();
    if (trimmed === "" || trimmed.startsWith("#")) continue;
    const colon = trimmed.indexOf(":");
    const user = trimmed.slice(0, colon);
    const hash = trimmed.slice(colon + 1);
    if (colon < 1 || !BCRYPT.test(hash)) refused.push(colon < 1 ? "(a line without a user)" : user);
    // PHP's and Apache's name of the same algorithm.
    else users.set(user, hash.replace(/^\$2y?\$/, "$2b$"));
  }
  return { users, refused };
}

export function createHtpasswd(realm: string, path: string, warn: (message: string) => void): Authenticator {
  const key = randomBytes(32);
  const remembered = createCache<{ hash: string; until: number }>(10_000);
  let read: { users: Map<string, string>; stamp: string } | undefined;

  const users = (): Map<string, string> => {
    const { mtimeMs, size, ino } = statSync(path);
    const stamp = `${mtimeMs} ${size} ${ino}`;
    if (read?.stamp === stamp) return read.users;
    const parsed = parseHtpasswd(readFileSync(path, "utf8"));
    for (const user of parsed.refused) warn(`${path}: ${user} has no bcrypt hash and can't log in`);
    read = { users: parsed.users, stamp };
    return read.users;
  };
  users();

  const challenge = () => refuse("UNAUTHORIZED", { headers: { "www-authenticate": `Basic realm=${JSON.stringify(realm)}` } });

  return {
    check(request) {
      const header = request.headers.authorization ?? "";
      const match = header.length <= MAX_HEADER ? /^basic\s+([A-Za-z0-9+/=]+)$/i.exec(header) : null;
      if (!match) throw challenge();
      const pair = Buffer.from(match[1]!, "base64").toString("utf8");
      const colon = pair.indexOf(":");
      if (colon < 1) throw challenge();
      const user = pair.slice(0, colon);
      const hash = users().get(user);
      const proof = createHmac("sha256", key).update(pair).digest("hex");
      const known = remembered.get(proof);
      if (known && known.hash === hash && known.until > Date.now()) return user;
      return Bun.password.verify(pair.slice(colon + 1) || "\0", hash ?? NOBODY).then(
        (right) => {
          if (!right || hash === undefined) throw challenge();
          remembered.set(proof, { hash, until: Date.now() + REMEMBER_MS });
          return user;
        },
        () => {
          throw challenge();
        },
      );
    },
  };
}
