// Debian's cloud kernel, downloaded as a package and taken apart below build/: the host gets nothing of it. Modules are put in the order in which
// they load.
import { spawnSync } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync } from "node:fs";
import { basename, join } from "node:path";
import { Glob } from "bun";
import { root, which } from "../support/engine.ts";

export interface Kernel {
  image: string;
  /** The modules and what they need, in the order of loading. */
  modules(names: readonly string[]): { name: string; file: string }[];
}

const PACKAGE = "linux-image-cloud-amd64";

function run(program: string, args: string[], cwd?: string): string | undefined {
  const result = spawnSync(program, args, { encoding: "utf8", ...(cwd ? { cwd } : {}) });
  return result.status === 0 ? result.stdout : undefined;
}

/** The package that the name stands for now: linux-image-6.1.0-…-cloud-amd64. */
function versioned(): string | undefined {
  return /Depends: (linux-image-\S+)/.exec(run("apt-cache", ["depends", PACKAGE]) ?? "")?.[1];
}

/** Downloads and unpacks it, once for each version. A text: why there is none. */
export function findKernel(): Kernel | string {
  for (const program of ["apt-get", "apt-cache", "dpkg-deb"]) if (!which(program)) return `${program} not installed`;
  let name = versioned();
  if (!name) {
    run("apt-get", ["update", "-qq"]);
    name = versioned();
  }
  if (!name) return `the package ${PACKAGE} is not known to apt`;
  const cache = join(root, "build/vm");
  const tree = join(cache, name);
  mkdirSync(cache, { recursive: true });
  if (!readdirSync(cache).includes(name)) {
    const making = join(cache, `${name}.${process.pid}`);
    mkdirSync(making);
    try {
      // Lists that are too old name files that are gone.
      if (run("apt-get", ["download", "-qq", name], making) === undefined) {
        run("apt-get", ["update", "-qq"]);
        if (run("apt-get", ["download", "-qq", name], making) === undefined) return `${name} could not be downloaded`;
      }
      const file = readdirSync(making).find((entry) => entry.endsWith(".deb"));
      if (!file || run("dpkg-deb", ["-x", join(making, file), join(making, "tree")]) === undefined) return `${name} could not be unpacked`;
      renameSync(join(making, "tree"), tree);
    } finally {
      rmSync(making, { recursive: true, force: true });
    }
  }
  const image = readdirSync(join(tree, "boot")).find((entry) => entry.startsWith("vmlinuz-"));
  if (!image) return `${name} has no kernel image`;
  return { image: join(tree, "boot", image), modules: (names) => inLoadingOrder(tree, names) };
}

const plain = (name: string) => name.replaceAll("-", "_");

function inLoadingOrder(tree: string, names: readonly string[]): { name: string; file: string }[] {
  const files = new Map([...new Glob("**/*.ko").scanSync(tree)].map((path) => [plain(basename(path, ".ko")), join(tree, path)]));
  const order = new Map<string, string>();
  const visit = (name: string): void => {
    if (order.has(name)) return;
    const file = files.get(name);
    // What is no module is part of the kernel.
    if (!file) return;
    for (const needed of needs(file)) visit(plain(needed));
    order.set(name, file);
  };
  for (const name of names) visit(plain(name));
  return [...order].map(([name, file]) => ({ name, file }));
}

/** `depends=` of the section .modinfo, which modpost wrote. */
function needs(file: string): string[] {
  const data = readFileSync(file);
  const at = data.indexOf("\0depends=");
  if (at < 0) return [];
  const end = data.indexOf(0, at + 1);
  return data
    .toString("latin1", at + 9, end)
    .split(",")
    .filter(Boolean);
}
