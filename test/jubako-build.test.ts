// `jubako build`: our own client of the engine's BuildKit doors, with what docker build has and what it has not.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { bin, lacks, type Output, sh, startEngine, type TestEngine, until } from "./support/engine.ts";
import { freePort } from "./support/registry.ts";

describe.skipIf(lacks("docker", "busybox"))("jubako build", () => {
  let engine: TestEngine;
  let contexts = 0;
  beforeAll(async () => {
    engine = await startEngine();
  });
  afterAll(() => engine?.stop());

  function context(files: Record<string, string>): string {
    const dir = join(engine.dir, `context-${++contexts}`);
    mkdirSync(dir);
    for (const [name, text] of Object.entries(files)) {
      mkdirSync(dirname(join(dir, name)), { recursive: true });
      writeFileSync(join(dir, name), text);
    }
    return dir;
  }
  function run(options: { input?: string | Uint8Array; env?: Record<string, string>; cwd?: string }, ...args: string[]): Output {
    const result = spawnSync(bin("jubako"), ["-H", engine.host, ...args], {
      encoding: "utf8",
      timeout: 30_000,
      env: { ...process.env, DOCKER_CONFIG: join(engine.dir, "config"), ...options.env },
      cwd: options.cwd ?? engine.dir,
      ...(options.input === undefined ? { stdio: ["ignore", "pipe", "pipe"] } : { input: options.input }),
    });
    return { status: result.status ?? 255, stdout: result.stdout ?? "", stderr: `${result.stderr ?? ""}${result.error ?? ""}` };
  }
  const build = (...args: string[]) => run({}, "build", ...args);
  function must(result: Output): Output {
    if (result.status !== 0) throw new Error(`${result.stdout}${result.stderr}\n${engine.log().slice(-2000)}`);
    return result;
  }
  const ran = (...args: string[]) => engine.docker("run", "--rm", ...args).stdout;

  test("a directory: steps in plain lines, names, iidfile, metadata", () => {
    const dir = context({
      Dockerfile: "FROM busybox AS one\nRUN echo said; echo a > /a\nFROM busybox\nCOPY --from=one /a /\nCOPY f /\nCMD cat /a /f\n",
      f: "f\n",
    });
    const out = must(build("-t", "first", "-t", "second:x", "--iidfile", join(dir, "id"), "--metadata-file", join(dir, "meta"), dir));
    expect(out.stderr).toMatch(/^#\d+ \[one 2\/2\] RUN echo said; echo a > \/a$/m);
    expect(out.stderr).toMatch(/^#\d+ \d+\.\d{3} said$/m);
    expect(out.stderr).toMatch(/^#\d+ DONE \d+\.\ds$/m);
    expect(out.stdout).toBe("");
    expect(ran("second:x")).toBe("a\nf\n");
    const id = readFileSync(join(dir, "id"), "utf8");
    expect(engine.docker("image", "inspect", "-f", "{{.Id}}", "first").stdout.trim()).toBe(id);
    expect(JSON.parse(readFileSync(join(dir, "meta"), "utf8"))).toMatchObject({ "containerimage.config.digest": id });
    expect(must(build("-t", "first", dir)).stderr).toMatch(/^#\d+ CACHED$/m);
    expect(must(build("-q", dir)).stdout).toBe(`${id}\n`);
    const raw = must(build("--progress", "rawjson", dir))
      .stderr.trim()
      .split("\n");
    expect(raw.flatMap((line) => (JSON.parse(line) as { vertexes?: unknown[] }).vertexes ?? []).length).toBeGreaterThan(3);
  });

  test("a failed step says where it stands, what it said last, and its exit code", () => {
    const failed = build(context({ Dockerfile: "FROM busybox\n\nRUN echo about to fail; exit 42\n" }));
    expect(failed.status).toBe(1);
    expect(failed.stderr).toContain(" > [2/2] RUN echo about to fail; exit 42:\nabout to fail\n------\n");
    expect(failed.stderr).toContain("Dockerfile:3\n");
    expect(failed.stderr).toContain("   3 | >>> RUN echo about to fail; exit 42\n     |     ^");
    expect(failed.stderr).toContain("did not complete successfully: exit code: 42");
    expect(build(context({ Dockerfile: "FROM busybox\nCOPPY a b\n" })).stderr).toContain("unknown instruction: COPPY (did you mean COPY?)");
    expect(build(context({ x: "" })).stderr).toContain("Dockerfile: no such file or directory");
    expect(build("--squash", context({ Dockerfile: "FROM busybox\n" })).stderr).toContain(
      "--squash is not supported: it would give up the sharing",
    );
  });

  test("--on-failure shell enters the failed container as it was", () => {
    const dir = context({ Dockerfile: "FROM busybox\nENV A=b\nWORKDIR /w\nUSER 5\nRUN echo half > /tmp/half; exit 9\n" });
    const entered = run({ input: 'cat /tmp/half; pwd; id -u; echo "$A"\nexit 3\n' }, "build", "--on-failure", "shell", dir);
    expect(entered.stdout).toBe("half\n/w\n5\nb\n");
    expect(entered.status).toBe(1);
    expect(entered.stderr).toContain("exit code: 9");
    const left = join(engine.dir, "exec/build");
    expect(existsSync(left) ? readdirSync(left) : []).toEqual([]);
  });

  test("--explain says which input of a step changed", () => {
    const files = { Dockerfile: "FROM busybox\nARG V=1\nCOPY f /f\nRUN cat /f > /g\n", f: "1" };
    must(build("-q", context(files)));
    const copied = must(build("--explain", "--progress", "none", context({ ...files, f: "2" }))).stderr;
    expect(copied).toMatch(/MISS \[2\/3\] COPY f \/f\n {2}~ .*\/f.*: [0-9a-f]{12} -> [0-9a-f]{12}\n/);
    const environment = must(build("--explain", "--progress", "none", "--build-arg", "V=2", context({ ...files, f: "2" }))).stderr;
    expect(environment).toContain("variable V: 1 -> 2");
    expect(environment).not.toContain("COPY");
  });

  test("--secret from a file and from the environment, --build-context, --add-host, --label, --target, --no-cache", () => {
    const dir = context({
      Dockerfile: `FROM busybox AS base
RUN --mount=type=secret,id=file --mount=type=secret,id=variable,env=V cat /run/secrets/file > /out; echo "$V" >> /out
RUN --network=none grep -q 10.1.2.3 /etc/hosts
COPY --from=more x /x
FROM base AS wanted
CMD cat /out /x
FROM base
RUN false
`,
    });
    writeFileSync(join(dir, "secret"), "s1\n");
    const more = context({ x: "from elsewhere\n", ".dockerignore": "y\n", y: "" });
    const args = ["--secret", `id=file,src=${dir}/secret`, "--secret", "id=variable,env=MINE", "--build-context", `more=${more}`];
    const rest = ["--add-host", "h:10.1.2.3", "--label", "l=v", "--target", "wanted", "--no-cache", "-t", "wanted", dir];
    must(run({ env: { MINE: "s2" } }, "build", ...args, ...rest));
    expect(ran("wanted")).toBe("s1\ns2\nfrom elsewhere\n");
    expect(JSON.parse(engine.docker("image", "inspect", "wanted").stdout)[0].Config.Labels).toEqual({ l: "v" });
    expect(build("--secret", "src=x", dir).stderr).toContain("secrets need an id");
  });

  test("outputs: a directory, tar, an OCI archive, docker's archive", () => {
    const dir = context({
      Dockerfile:
        "FROM busybox AS made\nRUN mkdir -p /d/e && echo 1 > /d/e/f && ln -s e/f /d/l && chmod 751 /d/e\nFROM scratch\nCOPY --from=made /d /d\n",
    });
    const out = join(dir, "out");
    must(build("-o", out, dir));
    expect(readFileSync(join(out, "d/l"), "utf8")).toBe("1\n");
    expect(statSync(join(out, "d/e")).mode & 0o777).toBe(0o751);
    must(build("-o", `type=tar,dest=${dir}/x.tar`, dir));
    expect(sh(`tar -tf ${dir}/x.tar`).stdout).toContain("d/e/f");
    must(build("-o", `type=oci,dest=${dir}/oci.tar`, dir));
    expect(sh(`tar -tf ${dir}/oci.tar`).stdout).toContain("index.json");
    must(build("-o", `type=docker,dest=${dir}/docker.tar`, "-t", "loaded:1", dir));
    expect(engine.docker("load", "-i", `${dir}/docker.tar`).stdout).toContain("loaded:1");
    expect(build("-o", "type=nope", dir).stderr).toContain('unknown output type "nope"');
  });

  test("standard input: a Dockerfile, a tar, a Dockerfile beside a directory", () => {
    expect(must(run({ input: "FROM busybox\nRUN echo piped\n" }, "build", "-")).stderr).toContain("piped");
    const dir = context({ Dockerfile: "FROM busybox\nCOPY sub/f /f\nRUN cat /f\n", "sub/f": "in the tar\n" });
    const tar = spawnSync("tar", ["-C", dir, "-czf", "-", "."]).stdout;
    expect(must(run({ input: tar }, "build", "-")).stderr).toContain("in the tar");
    const beside = run({ input: "FROM busybox\nCOPY sub/f /g\nRUN echo beside; cat /g\n" }, "build", "-f", "-", dir);
    expect(must(beside).stderr).toContain("beside");
  });

  test("the context: links, ignored files, only what is wanted is sent", () => {
    const dir = context({
      "other/File": "FROM busybox\nCOPY link a* /d/\nRUN ls /d; cat /d/link\n",
      "other/File.dockerignore": "ab\n",
      "real/target": "through a link\n",
      aa: "",
      ab: "",
      big: "x".repeat(1 << 20),
    });
    symlinkSync("real/target", join(dir, "link"));
    const out = must(build("-f", join(dir, "other/File"), dir)).stderr;
    expect(out).toMatch(/\d aa\n/);
    expect(out).not.toMatch(/\d ab\n/);
    expect(out).toContain("through a link");
    expect(out).not.toContain("MB");
  });

  test("--check, --call=outline and targets, with lines and carets", () => {
    const dir = context({
      Dockerfile: "# V the version\nARG V=1\nFROM busybox AS Base\nARG V\nRUN --mount=type=secret,id=s,required true\nFROM base\n",
    });
    const checked = build("--check", dir);
    expect(checked.stdout).toContain("WARNING: StageNameCasing - https://docs.docker.com/go/dockerfile/rule/stage-name-casing/");
    expect(checked.stdout).toContain("   3 | >>> FROM busybox AS Base\n     |     ^");
    expect(build("--check", context({ Dockerfile: "FROM busybox\n" })).stdout).toBe("Check complete, no warnings found.\n");
    expect(build("--check", context({ Dockerfile: "FROM busybox\nNOPE\n" })).status).toBe(1);
    const outline = build("--call", "outline", "--target", "base", dir).stdout;
    expect(outline).toContain("V           1       the version");
    expect(outline).toContain("s        true");
    expect(JSON.parse(build("--call", "targets,format=json", dir).stdout).targets).toHaveLength(2);
    expect(must(run({ env: { s: "x" } }, "build", "--secret", "id=s", dir)).stderr).toContain("1 warning found");
  });

  test("cache: to and from the image itself; builder du and prune", () => {
    const dir = context({ Dockerfile: "FROM busybox\nRUN echo kept > /kept\n" });
    must(build("-t", "cached", "--cache-to", "type=inline", dir));
    expect(must(run({}, "builder", "du")).stdout).toMatch(/Total:\t\t.*B\n/);
    expect(must(run({}, "builder", "prune", "-af")).stdout).toMatch(/Total reclaimed space: .*B\n/);
    expect(must(build(dir)).stderr).not.toMatch(/#\d+ \[2\/2\] RUN echo kept > \/kept\n#\d+ CACHED/);
  });

  test.skipIf(lacks("git"))("git: a context, ADD of a repository, POST /build?remote", async () => {
    const dir = context({ "sub/Dockerfile": "FROM busybox\nCOPY x /x\nRUN cat /x\n", "sub/x": "from git\n" });
    const commit = "git init -q -b main . && git add . && git -c user.name=n -c user.email=n@h commit -q -m first";
    expect(sh(`cd ${dir} && ${commit}`).stderr).toBe("");
    const port = await freePort();
    const flags = ["--export-all", `--base-path=${dir}`, `--port=${port}`, "--listen=127.0.0.1", "--reuseaddr"];
    const daemon = spawn("git", ["daemon", ...flags], { stdio: "ignore", detached: true });
    try {
      const address = `git://127.0.0.1:${port}/.git`;
      await until("git daemon", () => sh(`git ls-remote ${address}`).status === 0);
      expect(must(build(`${address}#main:sub`)).stderr).toContain("from git");
      const adding = context({
        Dockerfile: `FROM busybox\nADD ${address}#main /a\nADD --keep-git-dir=true ${address} /b\nCMD ls -A /a /b\n`,
      });
      must(build("-t", "adding", adding));
      expect(ran("adding")).toBe("/a:\nsub\n\n/b:\n.git\nsub\n");
      const remote = encodeURIComponent(`${address}#main:sub`);
      const answer = await fetch(`http://docker/v1.50/build?remote=${remote}`, {
        method: "POST",
        unix: engine.host.replace("unix://", ""),
      });
      // The other door built the same: nothing is left to do.
      expect(await answer.text()).toMatch(/Step 3\/3 : RUN cat \/x.*Using cache.*Successfully built/s);
    } finally {
      process.kill(-daemon.pid!, "SIGKILL");
    }
  });

  test("OCI layouts of ours: a cache in a directory, kept and found again, and an image in one as a context", () => {
    const dir = context({ Dockerfile: "FROM busybox\nRUN head -c 16 /dev/urandom | md5sum > /unique\nCMD cat /unique\n" });
    const cache = join(engine.dir, "cache-layout");
    must(build("-t", "kept", "--cache-to", `type=local,dest=${cache},tag=a`, dir));
    must(build("-q", "--cache-to", `type=local,dest=${cache},tag=b`, context({ Dockerfile: "FROM busybox\nRUN echo other\n" })));
    const { manifests } = JSON.parse(readFileSync(join(cache, "index.json"), "utf8")) as { manifests: { annotations: object }[] };
    expect(manifests.flatMap(({ annotations }) => Object.values(annotations))).toEqual(["a", "b"]);
    const unique = ran("kept");
    must(run({}, "builder", "prune", "-af"));
    expect(must(build("-t", "again", "--cache-from", `type=local,src=${cache},tag=a`, dir)).stderr).toMatch(
      /importing cache manifest from local/,
    );
    expect(ran("again")).toBe(unique);
    expect(must(build("-q", "--cache-from", "type=local,src=/nowhere", dir)).stderr).toContain("local cache import at /nowhere not found");
    expect(build("--cache-to", "type=local", dir).stderr).toContain("dest is required for the local cache exporter");

    const layout = join(engine.dir, "layout");
    mkdirSync(layout);
    must(build("-o", `type=oci,dest=${layout}.tar`, dir));
    sh(`tar -xf ${layout}.tar -C ${layout}`);
    const upon = context({ Dockerfile: "FROM base\nRUN cat /unique\n" });
    expect(must(build("--build-context", `base=oci-layout://${layout}`, upon)).stderr).toContain(unique.trim());
    expect(build("--build-context", `base=oci-layout://${layout}:other@sha256:${"0".repeat(64)}`, upon).stderr).toMatch(/not found/);
    expect(build("--build-context", "base=oci-layout:///nowhere", upon).stderr).toContain("/nowhere is no OCI layout");
  });

  test("the classic protocol, where DOCKER_BUILDKIT=0 asks for it", () => {
    const dir = context({ Dockerfile: "FROM busybox\nCOPY . /all\nRUN ls /all\n", a: "", b: "", ".dockerignore": "b\nDockerfile\n" });
    const out = must(run({ env: { DOCKER_BUILDKIT: "0" } }, "build", "-t", "classic", dir)).stdout;
    expect(out).toContain("Step 1/3 : FROM busybox");
    expect(out).toContain("\na\n");
    expect(out).not.toContain("\nb\n");
    const failed = run({ env: { DOCKER_BUILDKIT: "0" } }, "build", context({ Dockerfile: "FROM busybox\nRUN exit 7\n" }));
    expect(failed.status).toBe(7);
    expect(run({ env: { DOCKER_BUILDKIT: "0" } }, "build", "--secret", "id=x", dir).stderr).toContain(
      "the --secret option requires BuildKit",
    );
  });
});
