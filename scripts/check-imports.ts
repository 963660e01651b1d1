// The import rule: layers import downwards only, and another layer only through its face (index.ts). Exit status 1 with a line for each breach.
import { readFileSync } from "node:fs";
import { dirname, join, normalize } from "node:path";
import { Glob } from "bun";

/** For each layer, the layers it may import; every layer may import the common ones. */
const allowed: Record<string, string[]> = {
  // distribution for the manifest commands, which talk to registries themselves
  cli: ["client", "distribution", "oci"],
  client: [],
  engine: ["build", "network", "containerd", "distribution", "oci", "runtime"],
  build: ["containerd", "distribution", "oci"],
  network: [],
  containerd: ["distribution", "shim", "oci"],
  shim: ["runtime", "oci"],
  runtime: ["oci"],
  registry: ["distribution", "oci"],
  distribution: ["oci"],
  oci: [],
  linux: [],
  trace: [],
  lib: [],
  api: [],
  gen: [],
};
const common = ["linux", "trace", "lib", "api", "gen"];
/** Layers whose files may be imported one by one: collections, not faces. */
const open = new Set(["lib", "api", "gen"]);

const breaches: string[] = [];
for (const file of new Glob("src/**/*.ts").scanSync(".")) {
  const layer = file.split("/")[1]!;
  if (!(layer in allowed)) {
    if (file !== "src/main.ts") breaches.push(`${file}: not in a layer (scripts/check-imports.ts lists them)`);
    continue;
  }
  const test = file.endsWith(".test.ts");
  const source = readFileSync(file, "utf8");
  for (const match of source.matchAll(/^\s*(import|export)\s+(type\s)?[^"']*?from\s+"(\.[^"]+)"|(import)\("(\.[^"]+)"\)/gm)) {
    const typeOnly = match[2] !== undefined;
    const target = normalize(join(dirname(file), match[3] ?? match[5]!));
    const to = target.split("/")[1]!;
    if (!target.startsWith("src/") || to === layer) continue;
    if (to === "main.ts") breaches.push(`${file}: imports src/main.ts`);
    else if (!common.includes(to) && !allowed[layer]!.includes(to) && !test)
      breaches.push(`${file}: ${layer} must not import ${to} (${target})`);
    else if (!open.has(to) && !typeOnly && !test && target !== `src/${to}/index.ts`)
      breaches.push(`${file}: imports ${target}; the face of ${to} is src/${to}/index.ts`);
  }
}
for (const breach of breaches) console.error(breach);
console.log(`import rule: ${breaches.length} breaches`);
process.exit(breaches.length ? 1 : 0);
