// The real docker CLI with the buildx plugin, compose and buildctl against the engine's BuildKit doors. One engine for the file.
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:net";
import { join } from "node:path";
import { create, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { DefinitionSchema, OpSchema } from "../src/gen/pb_pb.ts";
import { digestOf } from "../src/oci/index.ts";
import { buildctl, buildx, compose, startBuildx, type TestBuildx } from "./support/buildx.ts";
import { processesNaming } from "./support/daemon.ts";
import { lacks, until } from "./support/engine.ts";
import { startRegistry } from "./support/registry.ts";

setDefaultTimeout(60_000);

describe.skipIf(lacks("docker") || buildx === undefined)("docker buildx", () => {
  let t: TestBuildx;
  let { engine, env, context, docker, run, ok, build } = {} as TestBuildx;

  beforeAll(async () => {
    t = await startBuildx();
    ({ engine, env, context, docker, run, ok, build } = t);
  });
  afterAll(() => t?.engine.stop());

  test("docker build: steps, the cache, the names of what goes on", () => {
    const files = { Dockerfile: "FROM busybox\nCOPY a /a\nRUN echo said && cat /a /a > /b\nCMD cat /b\n", a: "x\n" };
    const first = ok(docker("build", "--progress", "plain", "-t", "first", context(files)));
    for (const text of [
      "[internal] load build definition from Dockerfile",
      "[internal] load .dockerignore",
      "[internal] load metadata for docker.io/library/busybox:latest",
      "[internal] load build context",
      "] COPY a /a",
      "exporting layers",
      "naming to docker.io/library/first:latest",
    ])
      expect(first).toContain(text);
    expect(first).toMatch(/#\d+ \[3\/3\] RUN echo said/);
    expect(first).toMatch(/#\d+ \d+\.\d+ said\n/);
    expect(run("first")).toBe("x\nx\n");
    const again = ok(build(context(files), "-t", "first"));
    expect(again).toMatch(/\[3\/3\] RUN echo said[^\n]*\n#\d+ CACHED/);
    expect(ok(build(context({ ...files, a: "y\n" }), "-t", "first"))).not.toMatch(/RUN echo said[^\n]*\n#\d+ CACHED/);
    expect(run("first")).toBe("y\ny\n");
  });

  test("of a directory that is built again only what changed is sent", () => {
    const dir = context({ Dockerfile: "FROM busybox\nCOPY . /c\n", big: "b".repeat(200_000), small: "1" });
    const sent = (out: string) => Number(/transferring context: (\d+(?:\.\d+)?)kB/.exec(out)?.[1] ?? 0);
    expect(sent(ok(build(dir)))).toBeGreaterThan(199);
    writeFileSync(join(dir, "small"), "2");
    expect(sent(ok(build(dir, "-t", "delta")))).toBeLessThan(1);
    expect(run("delta", "sh", "-c", "cat /c/small; wc -c < /c/big")).toBe("2200000\n");
  });

  test("a failed step: its output, the lines, the exit status", () => {
    const failed = build(context({ Dockerfile: "FROM busybox\nRUN true\nRUN echo out; exit 3\nRUN true\n" }));
    expect(failed.status).toBe(1);
    expect(failed.stderr).toMatch(/#\d+ \d+\.\d+ out\n/);
    expect(failed.stderr).toContain('process "/bin/sh -c echo out; exit 3" did not complete successfully: exit code: 3');
    expect(failed.stderr).toContain("Dockerfile:3\n");
    expect(failed.stderr).toContain("   3 | >>> RUN echo out; exit 3");
    const wrong = build(context({ Dockerfile: "FROM busybox\nFROG x\n" }));
    expect(wrong.stderr).toContain("   2 | >>> FROG x");
    expect(wrong.stderr).toContain("dockerfile parse error on line 2: unknown instruction: FROG");
    // the error travels in headers: a long Dockerfile must not break it
    const long = `FROM busybox\n${"# a line that is only here to be long\n".repeat(10_000)}RUN false\n`;
    expect(build(context({ Dockerfile: long })).stderr).toContain(">>> RUN false");
  });

  test("secrets and cache mounts", () => {
    const dir = context({
      secret: "hidden",
      Dockerfile: `FROM busybox
RUN --mount=type=secret,id=s cp /run/secrets/s /copy
RUN --mount=type=secret,id=s,env=TOKEN echo "$TOKEN" >> /copy
RUN --mount=type=cache,target=/cache echo 1 >> /cache/n && wc -l < /cache/n > /n
`,
    });
    ok(build(dir, "-t", "secret", "--secret", `id=s,src=${dir}/secret`));
    expect(run("secret", "sh", "-c", "cat /copy /n; ls /run/secrets 2>/dev/null")).toBe("hiddenhidden\n1\n");
    const missing = build(context({ Dockerfile: "FROM busybox\nRUN --mount=type=secret,id=no,required=true true\n" }));
    expect(missing.status).toBe(1);
    expect(missing.stderr).toMatch(/secret no: not found/);
  });

  test("an ssh agent is forwarded", async () => {
    const path = join(engine.dir, "agent.sock");
    const asked: Buffer[] = [];
    const agent: Server = createServer((socket) => {
      socket.on("error", () => {});
      socket.on("data", (bytes) => {
        asked.push(bytes);
        // SSH_AGENT_IDENTITIES_ANSWER with no keys
        socket.write(Buffer.from([0, 0, 0, 5, 12, 0, 0, 0, 0]));
      });
    });
    await new Promise<void>((resolve) => agent.listen(path, resolve));
    try {
      const Dockerfile = `FROM busybox
RUN --mount=type=ssh test -S "$SSH_AUTH_SOCK" && printf '\\0\\0\\0\\1\\13' | nc local:$SSH_AUTH_SOCK -w 2 | od -An -tx1 > /answer || true
`;
      const args = ["buildx", "build", "--progress", "plain", "-t", "ssh", "--ssh", `default=${path}`, context({ Dockerfile })];
      const child = spawn("docker", ["-H", engine.host, ...args], { env: { ...process.env, ...env }, stdio: "ignore" });
      expect(await new Promise((resolve) => child.once("exit", resolve))).toBe(0);
    } finally {
      agent.close();
    }
    expect(run("ssh", "ls", "/answer")).toBe("/answer\n");
  });

  test("outputs: local, tar, oci, docker", () => {
    const dir = context({
      Dockerfile: "FROM busybox AS b\nRUN mkdir /d && echo 1 > /d/f && ln -s f /d/l\nFROM scratch\nCOPY --from=b /d /d\n",
    });
    const out = join(engine.dir, "out");
    ok(build(dir, "-o", out));
    expect(readFileSync(join(out, "d/l"), "utf8")).toBe("1\n");
    expect(readdirSync(out)).toEqual(["d"]);
    ok(build(dir, "-o", `type=tar,dest=${out}/x.tar`));
    expect(spawnSync("tar", ["-tf", `${out}/x.tar`]).stdout.toString()).toContain("d/l");
    ok(build(dir, "-o", `type=oci,dest=${out}/oci.tar`));
    expect(spawnSync("tar", ["-tf", `${out}/oci.tar`]).stdout.toString()).toContain("oci-layout");
    ok(build(dir, "-o", `type=oci,tar=false,dest=${out}/layout`));
    expect(readdirSync(join(out, "layout/blobs/sha256")).length).toBeGreaterThan(2);
    ok(build(dir, "-t", "loaded", "-o", `type=docker,dest=${out}/docker.tar`));
    expect(ok(docker("load", "-i", `${out}/docker.tar`))).toContain("Loaded image: loaded:latest");
  });

  test("-q, --iidfile and --metadata-file name an image that is there", () => {
    const dir = context({ Dockerfile: "FROM busybox\nRUN echo meta > /m\n" });
    const id = docker("buildx", "build", "-q", "--iidfile", join(dir, "iid"), "--metadata-file", join(dir, "meta.json"), dir).stdout.trim();
    expect(id).toMatch(/^sha256:[0-9a-f]{64}$/);
    expect(readFileSync(join(dir, "iid"), "utf8")).toBe(id);
    expect(JSON.parse(readFileSync(join(dir, "meta.json"), "utf8"))["containerimage.digest"]).toMatch(/^sha256:/);
    expect(run(id, "cat", "/m")).toBe("meta\n");
  });

  test("a cache in the client's directory; du and prune", () => {
    const dir = context({ Dockerfile: "FROM busybox\nRUN cat /proc/uptime > /when\n" });
    const cache = join(engine.dir, "cache");
    ok(build(dir, "-t", "kept", "--cache-to", `type=local,dest=${cache},mode=max`));
    const when = run("kept", "cat", "/when");
    expect(ok(docker("buildx", "du"))).toMatch(/Total:\s+\d/);
    ok(docker("buildx", "prune", "-af"));
    expect(ok(docker("buildx", "du"))).toMatch(/Total:\s+0B/);
    expect(ok(build(dir, "-t", "kept", "--cache-from", `type=local,src=${cache}`))).toMatch(/RUN cat.*CACHED/s);
    expect(run("kept", "cat", "/when")).toBe(when);
  });

  test("bake: a target that is another's context", () => {
    const dir = context({
      "docker-bake.hcl": `group "default" { targets = ["one", "two"] }
target "one" {
  dockerfile-inline = "FROM busybox\\nRUN echo one > /one\\n"
}
target "two" {
  contexts = { base = "target:one" }
  dockerfile-inline = "FROM base\\nRUN cat /one /one > /two\\n"
  tags = ["baked"]
}
`,
    });
    ok(docker("buildx", "bake", "--progress", "plain", "-f", join(dir, "docker-bake.hcl")));
    expect(run("baked", "cat", "/two")).toBe("one\none\n");
  });

  test.skipIf(!compose)("docker compose build", () => {
    const dir = context({
      "compose.yaml": "services:\n  web:\n    build: .\n  other:\n    build: {context: ., target: b, args: {A: '7'}}\n",
      Dockerfile: "FROM busybox AS b\nARG A=1\nRUN echo $A > /a\nFROM b\n",
    });
    ok(docker("compose", "-p", "jubakobuildx", "-f", join(dir, "compose.yaml"), "build"));
    expect(run("jubakobuildx-web", "cat", "/a")).toBe("1\n");
    expect(run("jubakobuildx-other", "cat", "/a")).toBe("7\n");
  });

  test.skipIf(!buildctl)("buildctl on the engine's socket", () => {
    const dir = context({ Dockerfile: "FROM busybox AS b\nRUN echo ctl > /c\nFROM scratch\nCOPY --from=b /c /\n" });
    const ctl = (...args: string[]) => spawnSync(buildctl!, ["--addr", engine.host, ...args], { encoding: "utf8", timeout: 60_000 });
    expect(ctl("debug", "workers").stdout).toContain("linux/amd64");
    const local = ["--local", `context=${dir}`, "--local", `dockerfile=${dir}`];
    const built = ctl("build", "--progress", "plain", "--frontend", "dockerfile.v0", ...local, "--output", `type=local,dest=${dir}/out`);
    expect(built.stderr).toContain("RUN echo ctl");
    expect(readFileSync(join(dir, "out/c"), "utf8")).toBe("ctl\n");
  });

  test.skipIf(!buildctl)("LLB of one's own by buildctl", () => {
    const source = toBinary(
      OpSchema,
      create(OpSchema, { op: { case: "source", value: { identifier: "docker-image://docker.io/library/busybox:latest" } } }),
    );
    const exec = toBinary(
      OpSchema,
      create(OpSchema, {
        inputs: [{ digest: digestOf(source) }],
        op: {
          case: "exec",
          value: {
            meta: { args: ["sh", "-c", "echo llb > /out/f"], env: ["PATH=/bin"], cwd: "/" },
            mounts: [
              { input: 0n, dest: "/", output: -1n },
              { input: -1n, dest: "/out", output: 0n },
            ],
          },
        },
      }),
    );
    const last = toBinary(OpSchema, create(OpSchema, { inputs: [{ digest: digestOf(exec) }] }));
    const definition = create(DefinitionSchema, {
      def: [source, exec, last],
      metadata: { [digestOf(exec)]: { description: { "llb.customname": "a step of ours" } } },
    });
    const out = join(engine.dir, "llb");
    const args = ["--addr", engine.host, "build", "--progress", "plain", "--output", `type=local,dest=${out}`];
    const built = spawnSync(buildctl!, args, { input: toBinary(DefinitionSchema, definition), encoding: "utf8", timeout: 60_000 });
    expect(built.stderr).toContain("a step of ours");
    expect(readdirSync(out)).toEqual(["f"]);
    expect(readFileSync(join(out, "f"), "utf8")).toBe("llb\n");
    const broken = create(DefinitionSchema, { def: [exec, last] });
    const refused = spawnSync(buildctl!, args, { input: toBinary(DefinitionSchema, broken), encoding: "utf8", timeout: 60_000 });
    expect(refused.status).toBe(1);
  });

  test.skipIf(!buildctl)("a build within a build: a step's file is the definition of what follows", () => {
    const ops: Uint8Array[] = [];
    const op = (init: MessageInitShape<typeof OpSchema>) => {
      const bytes = toBinary(OpSchema, create(OpSchema, init));
      ops.push(bytes);
      return digestOf(bytes);
    };
    const mkfile = (path: string, data: Uint8Array) => {
      const action = { case: "mkfile" as const, value: { path, mode: 0o644, data, timestamp: -1n } };
      return op({ op: { case: "file", value: { actions: [{ input: -1n, secondaryInput: -1n, output: 0n, action }] } } });
    };
    const definition = (digest: string) => {
      op({ inputs: [{ digest }] });
      return toBinary(DefinitionSchema, create(DefinitionSchema, { def: ops.splice(0) }));
    };
    const within = (name: string, bytes: Uint8Array) => {
      const file = mkfile(name, bytes);
      const value = { builder: -1n, inputs: { "buildkit.llb.definition": { input: 0n } }, attrs: { "llbbuild.filename": name } };
      return definition(op({ inputs: [{ digest: file }], op: { case: "build", value } }));
    };
    const inner = definition(mkfile("/f", Buffer.from("made within\n")));
    const out = join(engine.dir, "within");
    const args = ["--addr", engine.host, "build", "--output", `type=local,dest=${out}`];
    const ctl = (input: Uint8Array) => spawnSync(buildctl!, args, { input, encoding: "utf8", timeout: 60_000 });
    expect(ctl(within("/d", within("/e", inner))).status).toBe(0);
    expect(readFileSync(join(out, "f"), "utf8")).toBe("made within\n");
    expect(ctl(within("/d", Buffer.from("nonsense"))).stderr).toContain("the definition of a build within the build");
  });

  test("a context and a Dockerfile from standard input", () => {
    const dir = context({ Dockerfile: "FROM busybox\nCOPY f /f\n", f: "stdin\n" });
    const tar = spawnSync("tar", ["-C", dir, "-cz", "."]).stdout;
    const options = { env, timeoutMs: 60_000, input: new Uint8Array(tar) };
    ok(engine.dockerWith(options, "buildx", "build", "--progress", "plain", "-t", "by-tar", "-"));
    expect(run("by-tar", "cat", "/f")).toBe("stdin\n");
    ok(engine.dockerWith({ ...options, input: "FROM busybox\nCOPY f /g\n" }, "buildx", "build", "-t", "by-file", "-f", "-", dir));
    expect(run("by-file", "cat", "/g")).toBe("stdin\n");
  });

  test("several platforms, and what is known of the builds, to a registry", async () => {
    const reach = spawnSync("sh", ["-c", "command -v docker-registry"]).status === 0;
    if (!reach) return console.log("skip: docker-registry not installed");
    await using registry = await startRegistry();
    const dir = context({ Dockerfile: "FROM scratch\nARG TARGETARCH\nCOPY f-$TARGETARCH /f\n", "f-amd64": "a", "f-arm64": "b" });
    const name = `${registry.address}/many`;
    ok(build(dir, "--platform", "linux/amd64,linux/arm64", "--provenance", "mode=max", "-t", name, "--push"));
    const list = JSON.parse(ok(docker("buildx", "imagetools", "inspect", "--raw", name)));
    const platforms = list.manifests.map(({ platform }: { platform: { architecture: string } }) => platform.architecture);
    expect(platforms.sort()).toEqual(["amd64", "arm64", "unknown", "unknown"]);
    // as a base for another platform; what the name means here stays
    ok(docker("rmi", name));
    ok(docker("pull", "-q", name));
    const before = docker("image", "inspect", "--format", "{{.Id}} {{.Architecture}}", name).stdout;
    const upon = context({ Dockerfile: `FROM ${name}\nCOPY g /g\n`, g: "" });
    ok(build(upon, "--platform", "linux/arm64", "-o", join(upon, "out")));
    expect(readFileSync(join(upon, "out/f"), "utf8")).toBe("b");
    expect(docker("image", "inspect", "--format", "{{.Id}} {{.Architecture}}", name).stdout).toBe(before);
    expect(ok(docker("buildx", "imagetools", "inspect", name, "--format", "{{json .Provenance}}"))).toContain("buildType");
  });

  test("the POST /build of older CLIs, with a session", () => {
    const old = spawnSync("sh", ["-c", "IFS=:; for d in $PATH; do [ -x $d/docker ] && $d/docker --version; done"], { encoding: "utf8" });
    const at = old.stdout.split("\n").findIndex((line) => /version (18|19|20)\./.test(line));
    if (at < 0) return console.log("skip: no docker CLI of 18.09 to 20.10 installed");
    const paths = spawnSync("sh", ["-c", "IFS=:; for d in $PATH; do [ -x $d/docker ] && echo $d/docker; done"], { encoding: "utf8" });
    const program = paths.stdout.split("\n")[at]!;
    const dir = context({ Dockerfile: "# syntax=docker/dockerfile:1\nFROM busybox\nRUN echo old > /old\n" });
    const options = { env: { ...process.env, DOCKER_BUILDKIT: "1", DOCKER_CONFIG: dir }, encoding: "utf8" as const, timeout: 60_000 };
    const built = spawnSync(program, ["-H", engine.host, "build", "--progress", "plain", "-t", "by-old", dir], options);
    expect(built.stderr).toContain("RUN echo old");
    expect(run("by-old", "cat", "/old")).toBe("old\n");
    const quiet = spawnSync(program, ["-H", engine.host, "build", "-q", dir], options);
    expect(quiet.stdout.trim()).toMatch(/^sha256:[0-9a-f]{64}$/);
    const input = spawnSync("tar", ["-C", dir, "-c", "."]).stdout;
    const piped = spawnSync(program, ["-H", engine.host, "build", "-q", "-"], { ...options, input });
    expect(piped.stdout.trim()).toMatch(/^sha256:[0-9a-f]{64}$/);
  });

  test("a build ends with its client, and leaves nothing", async () => {
    const dir = context({ Dockerfile: "FROM busybox\nRUN sleep 7654\n" });
    const steps = () => processesNaming("7654").filter((pid) => readFileSync(`/proc/${pid}/cmdline`, "utf8").startsWith("sleep"));
    for (const signal of ["SIGINT", "SIGKILL"] as const) {
      const args = ["-H", engine.host, "buildx", "build", "--progress", "plain", dir];
      const child: ChildProcess = spawn("docker", args, { env: { ...process.env, ...env }, stdio: "ignore", detached: true });
      await until("the step runs", () => steps().length > 0);
      // docker starts the plugin as a process of its own
      process.kill(-child.pid!, signal);
      await until("the step is gone", () => steps().length === 0);
    }
    await until("its directories are gone", () => readdirSync(join(engine.dir, "exec/build")).length === 0);
  });

  test("builds of one context at once", async () => {
    const dir = context({ Dockerfile: "FROM busybox\nARG N\nCOPY f /f\nRUN echo $N > /n && sleep 1\n", f: "same" });
    const numbers = ["1", "2", "3", "4"];
    const results = await Promise.all(
      numbers.map((n) => {
        const args = ["-H", engine.host, "buildx", "build", "-t", `at-once-${n}`, "--build-arg", `N=${n}`, dir];
        const child = spawn("docker", args, { env: { ...process.env, ...env }, stdio: "ignore" });
        return new Promise((resolve) => child.once("exit", resolve));
      }),
    );
    expect(results).toEqual([0, 0, 0, 0]);
    for (const n of numbers) expect(run(`at-once-${n}`, "cat", "/n")).toBe(`${n}\n`);
  });

  test("the engine's socket as a remote builder; what steps may be granted is the daemon's to say", () => {
    const dir = context({ Dockerfile: "FROM busybox AS b\nRUN --network=host echo remote > /r\nFROM scratch\nCOPY --from=b /r /\n" });
    ok(docker("buildx", "create", "--name", "jubako-remote", "--driver", "remote", engine.host));
    try {
      const out = join(dir, "out");
      expect(build(dir, "--builder", "jubako-remote", "-o", out).stderr).toContain("network.host is not allowed");
      ok(build(dir, "--builder", "jubako-remote", "--allow", "network.host", "-o", out));
      expect(readFileSync(join(out, "r"), "utf8")).toBe("remote\n");
    } finally {
      docker("buildx", "rm", "-f", "jubako-remote");
    }
    const insecure = build(context({ Dockerfile: "FROM busybox\n" }), "--allow", "security.insecure");
    expect(insecure.stderr).toContain("granting entitlement security.insecure is not allowed by build daemon configuration");
  });

  test("history: builds that were, and what they said", () => {
    const dir = context({ Dockerfile: "FROM busybox\nRUN echo remembered\n" });
    ok(build(dir, "--no-cache"));
    const id = docker("buildx", "history", "ls", "--format", "{{.Ref}}").stdout.split("\n")[0]!.split("/").at(-1)!;
    expect(ok(docker("buildx", "history", "logs", id))).toContain("remembered");
    ok(docker("buildx", "history", "rm", id));
    expect(docker("buildx", "history", "ls", "--format", "{{.Ref}}").stdout).not.toContain(id);
  });
});
