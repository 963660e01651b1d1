// kill -9 of the engine at any point of a pull, load, import, build, commit or push: what was half done costs nothing after the next start, and the same
// works then. The points come from a seed (JUBAKO_SEED for another one, JUBAKO_KILLS for more of them).
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { lacks, type Output, sh, startEngine, type TestEngine, until } from "./support/engine.ts";
import { startRegistry, type TestRegistry } from "./support/registry.ts";

const seed = Number(process.env.JUBAKO_SEED ?? 20);
const KILLS = Number(process.env.JUBAKO_KILLS ?? 2);

function createRandom(): () => number {
  let state = seed;
  return () => {
    state = (state * 1_664_525 + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

describe.skipIf(lacks("docker", "docker-registry", "skopeo", "ctr"))("crashes in the middle of images", () => {
  let engine: TestEngine;
  let registry: TestRegistry;
  let image: string;
  let archive: string;
  let context: string;
  const random = createRandom();

  beforeAll(async () => {
    registry = await startRegistry();
    engine = await startEngine();
    image = `${registry.address}/crash:1`;
    context = join(registry.dir, "context");
    archive = join(registry.dir, "crash.tar");
    mkdirSync(context);
    const files = Array.from({ length: 200 }, (_, i) => `echo ${i} >/tree/d/f${i}`).join("\n");
    writeFileSync(join(context, "script"), `mkdir -p /tree/d\n${files}\nhead -c 3000000 /dev/urandom >/tree/noise\n`);
    writeFileSync(
      join(context, "Dockerfile"),
      "FROM busybox\nARG SALT\nCOPY script /script\nRUN sh /script\nRUN head -c 2000000 /dev/urandom >/more; rm /tree/d/f7\nCOPY . /all\nENV A=b\n",
    );
    must(engine.dockerWith({ env: { DOCKER_BUILDKIT: "0" } }, "build", "-q", "-t", image, context));
    must(engine.docker("push", "-q", image));
    must(engine.docker("save", "-o", archive, image));
    must(engine.docker("run", "--name", "changed", image, "sh", "-c", "rm -r /tree/d; head -c 3000000 /dev/urandom >/own"));
    must(engine.docker("rm", "changed"));
    must(engine.docker("rmi", image));
    must(engine.docker("builder", "prune", "-af"));
    must(
      engine.docker(
        "run",
        "--name",
        "changed",
        "busybox",
        "sh",
        "-c",
        "head -c 3000000 /dev/urandom >/own; mkdir /d; for i in $(seq 300); do echo $i >/d/$i; done",
      ),
    );
    await restart();
    // what a killed engine left goes a second after the next start
    await Bun.sleep(1500);
  }, 60_000);
  afterAll(async () => {
    await engine?.stop();
    await registry?.[Symbol.asyncDispose]();
  });

  /** What is young is spared by the collector as long as its maker may be there. */
  async function restart(): Promise<void> {
    await engine.kill();
    await engine.start();
  }

  function must(output: Output): Output {
    if (output.status !== 0) throw new Error(output.stderr);
    return output;
  }

  /** Everything that costs something. */
  function costs(): Record<string, unknown> {
    const manager = `ctr -a ${engine.dir}/exec/containerd.sock -n moby`;
    const lines = (command: string) => sh(`${manager} ${command}`).stdout.trim().split("\n").sort();
    const df = JSON.parse(sh(`curl -s --unix-socket ${engine.dir}/docker.sock http://localhost/v1.45/system/df`).stdout);
    return {
      content: lines("content ls -q"),
      ingests: lines("content active"),
      snapshots: lines("snapshots ls | awk '{print $1}'"),
      leases: lines("leases ls -q"),
      images: lines("images ls -q"),
      df: { layers: df.LayersSize, images: df.Images.length, cache: df.BuildCache?.length ?? 0, containers: df.Containers.length },
      // not those of databases and of what is made ahead of need
      files: sh(`cd ${engine.dir}/root && find . -type f ! -path '*/fs/*' ! -name '*.db*' ! -name '*.sqlite*' | sort`).stdout.split("\n"),
      unpacked: Number(sh(`find ${engine.dir}/root -path '*/fs/*' -type f | wc -l`).stdout),
      mounts: readFileSync("/proc/self/mounts", "utf8")
        .split("\n")
        .filter((line) => line.includes(engine.dir)).length,
      uploads: sh(`find ${engine.dir}/root/tmp -type f 2>/dev/null | wc -l`).stdout.trim(),
    };
  }

  async function settled(before: Record<string, unknown>, what: string): Promise<void> {
    const same = await until(what, () => Bun.deepEquals(costs(), before), 40_000).catch(() => false);
    if (!same) expect({ what, ...costs() }).toEqual({ what, ...before });
  }

  const work: Record<string, { run: string[]; after?: string[][]; product?: string; runs?: true }> = {
    pull: { run: ["pull", "-q", "IMAGE"], product: "IMAGE", runs: true },
    load: { run: ["load", "-q", "-i", "ARCHIVE"], product: "IMAGE", runs: true },
    import: { run: ["import", "ARCHIVE", "imported:1"], product: "imported:1" },
    commit: { run: ["commit", "changed", "committed:1"], product: "committed:1", runs: true },
    build: { run: ["build", "-q", "-t", "built:1", "CONTEXT"], product: "built:1", runs: true, after: [["builder", "prune", "-af"]] },
    push: { run: ["push", "-q", "busybox"] },
  };

  for (const [name, { run, after = [], product, runs }] of Object.entries(work)) {
    test(
      name,
      async () => {
        const filled = (arg: string) => arg.replace("IMAGE", image).replace("ARCHIVE", archive).replace("CONTEXT", context);
        const command = run.map(filled);
        if (name === "push") {
          const target = `${registry.address}/pushed:1`;
          must(engine.docker("tag", "busybox", target));
          command[command.length - 1] = target;
        }
        const clean = async () => {
          if (product) engine.docker("rmi", "-f", filled(product));
          for (const more of after) must(engine.docker(...more));
          if (after.length > 0) await restart();
        };
        const env = { DOCKER_BUILDKIT: "0" };
        // what is packed for a first push stays
        if (name === "push") must(engine.docker(...command));
        const before = costs();
        const begun = performance.now();
        must(engine.dockerWith({ env }, ...command));
        const takes = performance.now() - begun;
        await clean();
        await settled(before, `after a whole ${name}`);
        for (let kills = 0; kills < KILLS; kills++) {
          const delay = takes * (0.1 + 0.9 * random());
          const running = engine.dockerAsync(...command);
          await Bun.sleep(delay);
          await engine.kill();
          await running;
          await engine.start();
          const there = product && engine.docker("image", "inspect", filled(product)).status === 0;
          if (there || after.length > 0) await clean();
          await settled(before, `${name}, killed after ${Math.round(delay)} of ${Math.round(takes)} ms, ${there ? "" : "not "}done`);
        }
        must(engine.dockerWith({ env }, ...command));
        if (runs) expect(engine.docker("run", "--rm", filled(product!), "echo", "whole").stdout).toBe("whole\n");
        await clean();
        await restart();
        await settled(before, `after the last ${name}`);
      },
      60_000 + KILLS * 10_000,
    );
  }
});
