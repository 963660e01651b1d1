// Builds by the same clients in turns: ten RUN steps cold, warm, and with one line added; a multi-stage file cold, warm, and with one source file changed. Ratios above 1 mean
// that ours is better.
//   bun bench/build.ts [rounds] [door …]          (5, all)
// Doors: `classic` (docker build, dockerd and ours), `jubako` (BuildKit's protocol by our client, dockerd and ours), `buildx` (the same by buildx), and `buildkitd`: BuildKit's
// own daemon and ours, both as buildx' remote builders, both with their base image from a registry on loopback. The last two need the programs of scripts/go-tools.sh.
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { startBuildkitd } from "./support/buildkitd.ts";
import { type Row, report, timed, turns } from "./support/measure.ts";
import { DOCKER, must, type Peer, startDockerd, startJubakod } from "./support/peers.ts";
import { startRegistry } from "./support/registry.ts";

const rounds = Number(process.argv[2] ?? 5);
const dir = mkdtempSync(join(tmpdir(), "jubako-bench-build-"));
const jubako = new URL("../dist/bin/jubako", import.meta.url).pathname;
const has = (program: string, ...args: string[]) => spawnSync(program, args).status === 0;
const buildx = has(DOCKER, "buildx", "version");
const chosen = process.argv.slice(3);

function put(context: string, files: Record<string, string>): string {
  for (const [name, text] of Object.entries(files)) {
    const path = join(dir, context, name);
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, text);
  }
  return join(dir, context);
}

/** `unique` makes every step a new one. */
const steps = (base: string, unique: string, more = "") =>
  `FROM ${base}\nENV UNIQUE=${unique}\n${Array.from({ length: 10 }, (_, i) => `RUN echo ${i} $UNIQUE > /file-${i}\n`).join("")}${more}`;

const stages = (base: string, unique: string) => `FROM ${base} AS tools
ENV UNIQUE=${unique}
RUN mkdir /tools && echo "#!/bin/sh" > /tools/compile && echo "cat \\"\\$@\\"" >> /tools/compile && chmod 755 /tools/compile
FROM ${base} AS dependencies
ENV UNIQUE=${unique}
COPY dependencies /dependencies
RUN cat /dependencies/* > /bundle
FROM ${base} AS program
COPY --from=tools /tools /tools
COPY src /src
RUN /tools/compile /src/* > /program
FROM ${base} AS tests
COPY --from=tools /tools /tools
COPY test /test
RUN /tools/compile /test/* > /passed
FROM ${base}
COPY --from=dependencies /bundle /app/
COPY --from=program /program /app/
COPY --from=tests /passed /app/
CMD ["cat", "/app/program"]
`;

/** Builds a context at one of two sides. */
type Build = (context: string) => void;

function run(program: string, args: string[], env: Record<string, string> = {}): void {
  const result = spawnSync(program, args, { encoding: "utf8", env: { ...process.env, ...env } });
  if (result.status !== 0) throw new Error(`${program} ${args.join(" ")}: ${result.stdout}${result.stderr}`);
}

let counter = 0;
/** Never the same: what was built before is of no use. */
const unique = () => `${process.pid}-${counter++}`;

function compare(title: string, peer: string, base: string, theirs: Build, ours: Build): void {
  const rows: Row[] = [];
  const measure = (what: string, prepare: (build: Build) => string, goal?: string) => {
    const once = (build: Build) => () => {
      const context = prepare(build);
      return timed(() => build(context));
    };
    rows.push({ what, unit: "ms", ...turns(rounds, once(theirs), once(ours)), ...(goal ? { goal } : {}) });
  };
  const warm = (build: Build, context: string) => {
    build(context);
    return context;
  };
  measure("ten RUN steps, cold", () => put("ten", { Dockerfile: steps(base, unique()) }), "≥ 3");
  const same = put("same", { Dockerfile: steps(base, unique()) });
  measure("ten RUN steps, warm", (build) => warm(build, same), "≥ 3");
  measure("ten RUN steps, one line added", (build) => {
    const key = unique();
    warm(build, put("added", { Dockerfile: steps(base, key) }));
    return put("added", { Dockerfile: steps(base, key, "RUN echo more > /more\n") });
  });
  const files = (key: string, source = key) => ({
    Dockerfile: stages(base, key),
    "src/main": `main ${source}\n`,
    "src/other": "other\n",
    "test/one": `one ${key}\n`,
    ...Object.fromEntries(Array.from({ length: 50 }, (_, i) => [`dependencies/d${i}`, `${i} ${key}\n`])),
  });
  measure("multi-stage, cold", () => put("stages", files(unique())), "≥ 3");
  const still = put("still", files(unique()));
  measure("multi-stage, warm", (build) => warm(build, still), "≥ 3");
  measure("multi-stage, one source file changed", (build) => {
    const key = unique();
    warm(build, put("changed", files(key)));
    return put("changed", files(key, `${key}-changed`));
  });
  report(`${title}: medians of ${rounds}, in turns`, peer, rows);
}

const doors: Record<string, { title: string; build(peer: Peer): Build }> = {
  classic: {
    title: "docker build, classic",
    build: (peer) => (context) => run(DOCKER, ["-H", peer.host, "build", "-q", "-t", "bench", context], { DOCKER_BUILDKIT: "0" }),
  },
  jubako: {
    title: "BuildKit's protocol, jubako's client",
    build: (peer) => (context) => run(jubako, ["-H", peer.host, "build", "-q", "-t", "bench", context], { DOCKER_BUILDKIT: "1" }),
  },
  buildx: {
    title: "docker buildx build",
    build: (peer) => (context) =>
      run(DOCKER, ["-H", peer.host, "buildx", "build", "-q", "--provenance=false", "-t", "bench", context], { DOCKER_BUILDKIT: "1" }),
  },
};
const wanted = (door: string) => chosen.length === 0 || chosen.includes(door);

/** BuildKit's own daemon beside ours, both behind the same client. */
async function beside(ours: Peer): Promise<void> {
  const registry = await startRegistry(join(dir, "registry"));
  const base = `${registry.address}/busybox`;
  must(ours, "tag", "busybox", base);
  must(ours, "push", base);
  const theirs = await startBuildkitd(registry.address);
  try {
    const env = { BUILDX_CONFIG: join(dir, "buildx") };
    const builder = (name: string, address: string): Build => {
      run(DOCKER, ["buildx", "create", "--name", name, "--driver", "remote", address], env);
      const args = ["buildx", "build", "--builder", name, "-q", "--provenance=false", "--output", "type=image,name=bench"];
      return (context) => run(DOCKER, [...args, context], env);
    };
    compare("docker buildx build, remote builders", "buildkitd", base, builder("theirs", theirs.address), builder("ours", ours.host));
  } finally {
    await theirs.stop();
    await registry.stop();
  }
}

const ours = await startJubakod();
try {
  const needed = Object.keys(doors).filter((door) => wanted(door) && (door !== "buildx" || buildx));
  if (needed.length > 0) {
    const theirs = await startDockerd();
    try {
      for (const door of needed) {
        const { title, build } = doors[door]!;
        compare(title, "dockerd", "busybox", build(theirs), build(ours));
      }
    } finally {
      await theirs.stop();
    }
  }
  if (wanted("buildkitd")) {
    if (buildx && has("buildkitd", "--version")) await beside(ours);
    else console.error("buildkitd or buildx is not there: see scripts/go-tools.sh");
  }
} finally {
  await ours.stop();
  rmSync(dir, { recursive: true, force: true });
}
