// Builds by the same clients: Debian's dockerd and jubakod in turns. Ten RUN steps cold, warm, and with one line added; a multi-stage file cold, warm, and with one
// source file changed: by the classic protocol (docker build), and by BuildKit's, through buildx where docker has that plugin, else with jubako's own client
// against both. Ratios above 1 mean that ours is better.
//   bun bench/build.ts [rounds]          (5)
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { type Row, report, timed, turns } from "./support/measure.ts";
import { DOCKER, type Peer, startDockerd, startJubakod } from "./support/peers.ts";

const rounds = Number(process.argv[2] ?? 5);
const dir = mkdtempSync(join(tmpdir(), "jubako-bench-build-"));
const jubako = new URL("../dist/bin/jubako", import.meta.url).pathname;
const buildx = spawnSync(DOCKER, ["buildx", "version"]).status === 0;

function put(context: string, files: Record<string, string>): string {
  for (const [name, text] of Object.entries(files)) {
    const path = join(dir, context, name);
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, text);
  }
  return join(dir, context);
}

/** `unique` makes every step a new one. */
const steps = (unique: string, more = "") =>
  `FROM busybox\nENV UNIQUE=${unique}\n${Array.from({ length: 10 }, (_, i) => `RUN echo ${i} $UNIQUE > /file-${i}\n`).join("")}${more}`;

const stages = (unique: string) => `FROM busybox AS tools
ENV UNIQUE=${unique}
RUN mkdir /tools && echo "#!/bin/sh" > /tools/compile && echo "cat \\"\\$@\\"" >> /tools/compile && chmod 755 /tools/compile
FROM busybox AS dependencies
ENV UNIQUE=${unique}
COPY dependencies /dependencies
RUN cat /dependencies/* > /bundle
FROM busybox AS program
COPY --from=tools /tools /tools
COPY src /src
RUN /tools/compile /src/* > /program
FROM busybox AS tests
COPY --from=tools /tools /tools
COPY test /test
RUN /tools/compile /test/* > /passed
FROM busybox
COPY --from=dependencies /bundle /app/
COPY --from=program /program /app/
COPY --from=tests /passed /app/
CMD ["cat", "/app/program"]
`;

interface Door {
  name: string;
  build(peer: Peer, context: string): void;
}

function run(program: string, args: string[], env: Record<string, string>): void {
  const result = spawnSync(program, args, { encoding: "utf8", env: { ...process.env, ...env } });
  if (result.status !== 0) throw new Error(`${program} ${args.join(" ")}: ${result.stdout}${result.stderr}`);
}

const doors: Door[] = [
  {
    name: "docker build, classic",
    build: (peer, context) => run(DOCKER, ["-H", peer.host, "build", "-q", "-t", "bench", context], { DOCKER_BUILDKIT: "0" }),
  },
  buildx
    ? {
        name: "docker buildx build",
        build: (peer, context) =>
          run(DOCKER, ["-H", peer.host, "buildx", "build", "-q", "--provenance=false", "-t", "bench", context], { DOCKER_BUILDKIT: "1" }),
      }
    : {
        name: "BuildKit's protocol, jubako's client",
        build: (peer, context) => run(jubako, ["-H", peer.host, "build", "-q", "-t", "bench", context], { DOCKER_BUILDKIT: "1" }),
      },
];

let counter = 0;
/** Never the same: what was built before is of no use. */
const unique = () => `${process.pid}-${counter++}`;

const theirs = await startDockerd();
const ours = await startJubakod();
try {
  for (const [door, { name, build }] of doors.entries()) {
    const rows: Row[] = [];
    const measure = (what: string, prepare: (peer: Peer) => string, goal?: string) => {
      const once = (peer: Peer) => () => {
        const context = prepare(peer);
        return timed(() => build(peer, context));
      };
      rows.push({ what, unit: "ms", ...turns(rounds, once(theirs), once(ours)), ...(goal ? { goal } : {}) });
    };
    measure("ten RUN steps, cold", () => put("ten", { Dockerfile: steps(unique()) }), "≥ 3");
    const warm = (peer: Peer, context: string) => {
      build(peer, context);
      return context;
    };
    const same = put("same", { Dockerfile: steps(`same-${door}`) });
    measure("ten RUN steps, warm", (peer) => warm(peer, same), "≥ 3");
    measure("ten RUN steps, one line added", (peer) => {
      const key = unique();
      warm(peer, put("added", { Dockerfile: steps(key) }));
      return put("added", { Dockerfile: steps(key, "RUN echo more > /more\n") });
    });
    const files = (key: string, source = key) => ({
      Dockerfile: stages(key),
      "src/main": `main ${source}\n`,
      "src/other": "other\n",
      "test/one": `one ${key}\n`,
      ...Object.fromEntries(Array.from({ length: 50 }, (_, i) => [`dependencies/d${i}`, `${i} ${key}\n`])),
    });
    measure("multi-stage, cold", () => put("stages", files(unique())), "≥ 3");
    const still = put("still", files(`still-${door}`));
    measure("multi-stage, warm", (peer) => warm(peer, still), "≥ 3");
    measure("multi-stage, one source file changed", (peer) => {
      const key = unique();
      warm(peer, put("changed", files(key)));
      return put("changed", files(key, `${key}-changed`));
    });
    report(`${name}: medians of ${rounds}, in turns`, "dockerd", rows);
  }
} finally {
  await ours.stop();
  await theirs.stop();
  rmSync(dir, { recursive: true, force: true });
}
