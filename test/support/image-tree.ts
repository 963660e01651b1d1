// What is in an image, file by file: kind, mode, owner, contents, links. Times are left out: builds at different moments differ in them.
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { readTar } from "../../src/cli/tar/format.ts";

/** What engines put into every container. */
const THEIRS = /^(\.dockerenv$|dev(\/|$)|proc(\/|$)|sys(\/|$)|etc\/(hostname|hosts|resolv\.conf|mtab)$)/;

/** "kind mode owner size hash-or-target" by path, and whether two names are one file. */
export async function imageTree(host: string, image: string): Promise<Record<string, string>> {
  const docker = (...args: string[]) => spawnSync("docker", ["-H", host, ...args], { maxBuffer: 1 << 30 });
  const created = docker("create", image, "x");
  if (created.status !== 0) throw new Error(`docker create: ${created.stderr}`);
  const id = created.stdout.toString().trim();
  try {
    const exported = docker("export", id);
    if (exported.status !== 0) throw new Error(`docker export: ${exported.stderr}`);
    const tree: Record<string, string> = {};
    const pieces = (async function* () {
      yield exported.stdout;
    })();
    for await (const { entry, content } of readTar(pieces)) {
      const path = entry.name.replace(/^\.?\//, "").replace(/\/$/, "");
      if (path === "" || path === "." || THEIRS.test(path)) continue;
      const hash = createHash("sha256");
      for await (const piece of content()) hash.update(piece);
      const what = entry.type === "0" || entry.type === "7" ? hash.digest("hex").slice(0, 16) : entry.link;
      tree[path] = `${entry.type} ${(entry.mode & 0o7777).toString(8)} ${entry.uid}:${entry.gid} ${entry.size} ${what}`;
    }
    // An image without /etc gets one, for the files that engines put there.
    if (!Object.keys(tree).some((path) => path.startsWith("etc/"))) delete tree.etc;
    return tree;
  } finally {
    docker("rm", id);
  }
}
