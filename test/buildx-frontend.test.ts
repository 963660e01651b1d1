// A frontend that is an image of its own, made with BuildKit's client package: it runs as a container and asks us over its standard input and output.
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { spawnSync } from "node:child_process";
import { copyFileSync, existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { buildctl, buildx, startBuildx, type TestBuildx } from "./support/buildx.ts";
import { lacks, root, until } from "./support/engine.ts";
import { startRegistry, type TestRegistry } from "./support/registry.ts";

setDefaultTimeout(120_000);

const program = join(root, "build/tools/test-frontend");
const able = !lacks("docker", "docker-registry", "skopeo") && buildx !== undefined && existsSync(program);
if (!existsSync(program)) console.log("skip: the frontend is not built (scripts/go-tools.sh frontend)");

describe.skipIf(!able)("frontends of images", () => {
  let t: TestBuildx;
  let registry: TestRegistry;
  let frontend: string;

  beforeAll(async () => {
    [t, registry] = await Promise.all([startBuildx(), startRegistry()]);
    frontend = `${registry.address}/own/frontend:1`;
    const Dockerfile = `FROM scratch
COPY frontend /frontend
ENTRYPOINT ["/frontend"]
LABEL moby.buildkit.frontend.caps=moby.buildkit.frontend.inputs
`;
    const dir = t.context({ Dockerfile });
    copyFileSync(program, join(dir, "frontend"));
    t.ok(t.build(dir, "-t", frontend, "--push"));
    t.ok(t.docker("rmi", frontend));
  });
  afterAll(async () => {
    await t?.engine.stop();
    await registry?.[Symbol.asyncDispose]();
  });

  const quiet = () => until("nothing is left of its container", () => readdirSync(join(t.engine.dir, "exec/build")).length === 0);

  test("# syntax= of something that is no Dockerfile at all", async () => {
    const text = `# syntax=${frontend} and more\nwhatever { it = "says" }\n`;
    const dir = t.context({ Dockerfile: text, recipe: "a recipe" });
    const said = t.ok(t.build(dir, "--build-arg", "A=7", "--build-arg", "IMAGE=docker.io/library/busybox:latest", "-t", "own"));
    expect(said).toContain(`docker-image://${frontend}@sha256:`);
    expect(said).toContain("[internal] load recipe");
    expect(t.run("own", "sh", "-c", "cat /recipe /told /ran; echo $MADE_BY")).toBe(
      `a recipe${frontend} and more\n7\nran\na frontend of one's own\n`,
    );
    expect(t.ok(t.build(dir, "--build-arg", "A=7", "--build-arg", "IMAGE=docker.io/library/busybox:latest"))).toMatch(
      /sh -c [^\n]*\n#\d+ CACHED/,
    );
    // the same in another language's comments, and by a build argument
    const slashes = t.context({ Dockerfile: `// syntax=${frontend}\n{}\n`, recipe: "r" });
    t.ok(t.build(slashes, "-o", join(slashes, "out")));
    const plain = t.context({ Dockerfile: "FROM busybox\n", recipe: "by argument" });
    t.ok(t.build(plain, "--build-arg", `BUILDKIT_SYNTAX=${frontend}`, "-o", join(plain, "out")));
    expect(readFileSync(join(plain, "out/recipe"), "utf8")).toBe("by argument");
    await quiet();
  });

  test.skipIf(!buildctl)("gateway.v0; failures, its own and of the process", async () => {
    const dir = t.context({ recipe: "r" });
    const ctl = (...args: string[]) => {
      const all = ["--addr", t.engine.host, "build", "--frontend", "gateway.v0", "--local", `dockerfile=${dir}`, ...args];
      return spawnSync(buildctl!, all, { encoding: "utf8", timeout: 60_000 });
    };
    const source = ["--opt", `source=${frontend}`];
    const out = join(dir, "out");
    expect(ctl(...source, "--output", `type=local,dest=${out}`).status).toBe(0);
    expect(readdirSync(out).sort()).toEqual(["recipe", "told"]);
    expect(ctl(...source, "--opt", "fail=now").stderr).toContain("asked to fail: now");
    expect(ctl(...source, "--opt", "exit=1").stderr).toMatch(/did not complete successfully: exit code: 9: last words/);
    expect(ctl().stderr).toContain("no source specified for gateway");
    expect(ctl("--opt", `source=${registry.address}/none`).stderr).toContain("failed to resolve source metadata");
    expect(ctl(...source, "--opt", "frontend.caps=moby.buildkit.frontend.subrequests").stderr).toContain(
      "unsupported frontend capability moby.buildkit.frontend.subrequests",
    );
    await quiet();
  });
});
