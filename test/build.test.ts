// The real docker CLI's `build` by the classic protocol, and what comes of it. One engine for the file.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import { type AddressInfo, connect } from "node:net";
import { dirname, join } from "node:path";
import { lacks, sh, startEngine, type TestEngine } from "./support/engine.ts";

describe.skipIf(lacks("docker"))("docker build", () => {
  let engine: TestEngine;
  let contexts = 0;
  beforeAll(async () => {
    process.env.DOCKER_BUILDKIT = "0";
    engine = await startEngine();
  });
  afterAll(() => engine?.stop());

  /** A directory with these files. */
  function context(files: Record<string, string>): string {
    const dir = join(engine.dir, `context-${++contexts}`);
    for (const [name, text] of Object.entries(files)) {
      mkdirSync(dirname(join(dir, name)), { recursive: true });
      writeFileSync(join(dir, name), text);
    }
    return dir;
  }
  const build = (dir: string, ...args: string[]) =>
    engine.dockerWith({ env: { DOCKER_BUILDKIT: "0" }, timeoutMs: 60_000 }, "build", ...args, dir);
  /** Builds, and gives the output. */
  function made(name: string, files: Record<string, string>, ...args: string[]): string {
    const result = build(context(files), "-t", name, ...args);
    if (result.status !== 0) throw new Error(`docker build: ${result.stdout}\n${result.stderr}\n${engine.log().slice(-2000)}`);
    return result.stdout;
  }
  const run = (...args: string[]) => engine.docker("run", "--rm", ...args).stdout;
  const inspect = (name: string) => JSON.parse(engine.docker("image", "inspect", name).stdout)[0];

  test("FROM, RUN, COPY, ENV, WORKDIR, CMD", () => {
    const out = made("first", {
      Dockerfile: 'FROM busybox\nENV A=1\nWORKDIR /app\nCOPY a.txt .\nRUN echo "$A $(cat a.txt)" > out && echo said\nCMD ["cat","out"]\n',
      "a.txt": "file",
    });
    expect(out).toContain("Step 1/6 : FROM busybox\n ---> ");
    expect(out).toMatch(/---> Running in [0-9a-f]{12}\nsaid\n ---> Removed intermediate container [0-9a-f]{12}\n ---> [0-9a-f]{12}/);
    expect(out).toContain("Successfully tagged first:latest");
    expect(run("first")).toBe("1 file\n");
    expect(inspect("first").Config).toMatchObject({ Env: expect.arrayContaining(["A=1"]), WorkingDir: "/app", Cmd: ["cat", "out"] });
    const id = /Successfully built ([0-9a-f]{12})/.exec(out)![1]!;
    expect(inspect("first").Id).toStartWith(`sha256:${id}`);
  });

  test("an unchanged build is taken from the cache and gives the same image", () => {
    const files = { Dockerfile: "FROM busybox\nCOPY x /x\nRUN cat /proc/uptime > /when\nRUN cat /x >> /when\n", x: "1" };
    made("cached", files);
    const before = inspect("cached").Id;
    const again = made("cached", files);
    expect(again.match(/Using cache/g)).toHaveLength(3);
    expect(inspect("cached").Id).toBe(before);
    const changed = made("cached", { ...files, x: "2" });
    expect(changed).not.toContain("Using cache");
    expect(inspect("cached").Id).not.toBe(before);
    expect(made("cached", files, "--no-cache")).not.toContain("Using cache");
  });

  test("stages, COPY --from by name and number, --target, an unneeded stage is left out", () => {
    const Dockerfile = `FROM busybox AS one
RUN mkdir /d && echo 1 > /d/f && ln -s f /d/l && chown 3:4 /d/f
FROM busybox AS never
RUN false
FROM scratch AS bare
COPY --from=0 /d /e
FROM busybox
COPY --from=bare /e /g
COPY --from=one /d/f /h/
COPY --from=busybox /bin/busybox /bb
`;
    const out = made("stages", { Dockerfile });
    expect(out).not.toContain("RUN false");
    expect(run("stages", "sh", "-c", "cat /g/l /h/f; stat -c %u:%g /g/f; test -x /bb && echo bb")).toBe("1\n1\n3:4\nbb\n");
    made("bare", { Dockerfile }, "--target", "bare");
    expect(inspect("bare").RootFS.Layers).toHaveLength(1);
    expect(build(context({ Dockerfile }), "--target", "nope").stderr).toContain('target stage "nope" could not be found');
  });

  test("ARG and ENV: defaults, --build-arg, before FROM, expansion with modifiers, unused ones", () => {
    const Dockerfile = `ARG BASE=nothing
ARG TAG=latest
FROM \${BASE}:\${TAG}
ARG TAG
ARG WHO=world
ARG TARGETARCH
ENV HELLO="hi \${WHO%ld}" EMPTY=\${NOPE:-none}
LABEL who=$WHO tag=\${TAG} arch=$TARGETARCH
RUN echo "$WHO" > /who
`;
    const out = made("args", { Dockerfile }, "--build-arg", "BASE=busybox", "--build-arg", "UNUSED=1", "--label", "extra=yes");
    expect(out).toContain("[Warning] One or more build-args [UNUSED] were not consumed");
    const { Config } = inspect("args");
    expect(Config.Env).toEqual(expect.arrayContaining(["HELLO=hi wor", "EMPTY=none"]));
    expect(Config.Env.join()).not.toContain("WHO=");
    expect(Config.Labels).toMatchObject({ who: "world", tag: "latest", extra: "yes" });
    expect(Config.Labels.arch).toBeTruthy();
    expect(run("args", "cat", "/who")).toBe("world\n");
    made("args", { Dockerfile }, "--build-arg", "BASE=busybox", "--build-arg", "WHO=moon");
    expect(run("args", "cat", "/who")).toBe("moon\n");
  });

  test("a failing RUN says the line, the output and the exit code, and leaves nothing", () => {
    const before = engine.docker("ps", "-aq").stdout;
    const result = build(context({ Dockerfile: "FROM busybox\n\nRUN echo about to fail; exit 42\nRUN never\n" }));
    expect(result.status).toBe(42);
    expect(result.stdout).toContain("about to fail\n");
    expect(result.stdout).toContain("   3 | >>> RUN echo about to fail; exit 42\n     |     ^");
    expect(result.stderr).toContain("The command '/bin/sh -c echo about to fail; exit 42' returned a non-zero code: 42");
    expect(result.stdout).not.toContain("Step 3/3");
    expect(engine.docker("ps", "-aq").stdout).toBe(before);
    for (const place of ["root/build", "exec/build"]) {
      const path = join(engine.dir, place);
      if (existsSync(path)) expect(readdirSync(path).filter((name) => name !== "mounts")).toEqual([]);
    }
    expect(readFileSync("/proc/self/mounts", "utf8")).not.toContain(`${engine.dir}/root/build`);
  });

  test("mistakes in the Dockerfile are told as Docker tells them", () => {
    expect(build(context({ Dockerfile: "FROM busybox\nCOPPY a b\n" })).stderr).toContain(
      "dockerfile parse error on line 2: unknown instruction: COPPY (did you mean COPY?)",
    );
    expect(build(context({ Dockerfile: "FROM busybox\nCOPY nosuch /\n" })).stderr).toContain(
      "COPY failed: file not found in build context or excluded by .dockerignore: stat nosuch: file does not exist",
    );
    expect(build(context({ x: "" }), "-f", join(context({ y: "FROM busybox" }), "y")).status).toBe(0);
  });

  test(".dockerignore leaves out, also what the context's sender did not", () => {
    made("ignore", {
      Dockerfile: "FROM busybox\nCOPY . /all\nRUN find /all -type f | sort > /list\n",
      ".dockerignore": "*.md\n!keep.md\nsecret\nDockerfile\n.dockerignore\n**/b.md\n",
      "a.md": "",
      "keep.md": "",
      "secret/x": "",
      "sub/b.md": "",
      c: "",
    });
    expect(run("ignore", "cat", "/list")).toBe("/all/c\n/all/keep.md\n");
  });

  test("USER, WORKDIR, ENTRYPOINT, EXPOSE, VOLUME, STOPSIGNAL, SHELL, HEALTHCHECK", () => {
    const Dockerfile = `FROM busybox
RUN mkdir -m 1777 /out
USER 1234:1234
WORKDIR /a
WORKDIR b
RUN id -u > /out/id
EXPOSE 80 90-91/udp
VOLUME /v /w
STOPSIGNAL SIGUSR1
SHELL ["/bin/sh","-ec"]
CMD lost
ENTRYPOINT echo entered; pwd; cat /out/id; stat -c %u .
HEALTHCHECK --interval=5s --retries=2 CMD true
`;
    made("config", { Dockerfile });
    const { Config } = inspect("config");
    expect(Config).toMatchObject({
      User: "1234:1234",
      WorkingDir: "/a/b",
      ExposedPorts: { "80/tcp": {}, "90/udp": {}, "91/udp": {} },
      StopSignal: "SIGUSR1",
      Shell: ["/bin/sh", "-ec"],
      Entrypoint: ["/bin/sh", "-ec", "echo entered; pwd; cat /out/id; stat -c %u ."],
      Healthcheck: { Test: ["CMD-SHELL", "true"], Interval: 5e9, Retries: 2 },
    });
    expect(Config.Cmd ?? null).toEqual(["/bin/sh", "-ec", "lost"]);
    // the directory is root's: this is not BuildKit
    expect(engine.docker("run", "--rm", "config").stdout).toBe("entered\n/a/b\n1234\n0\n");
  });

  test("ONBUILD is kept in the image and executed in the next build", () => {
    made("onbuild-base", { Dockerfile: "FROM busybox\nONBUILD COPY f /f\nONBUILD RUN cat /f > /g\n" });
    expect(inspect("onbuild-base").Config.OnBuild).toEqual(["COPY f /f", "RUN cat /f > /g"]);
    const out = made("onbuild", { Dockerfile: "FROM onbuild-base\nRUN echo more >> /g\n", f: "x\n" });
    expect(out).toContain("# Executing 2 build triggers");
    expect(run("onbuild", "cat", "/g")).toBe("x\nmore\n");
    expect(inspect("onbuild").Config.OnBuild ?? null).toBeNull();
  });

  test("here-documents for RUN and COPY", () => {
    const Dockerfile = `FROM busybox
ARG NAME=x
RUN <<EOF
set -e
echo one > /one
echo two >> /one
EOF
RUN <<EOF
#!/bin/sh
echo "script $0" > /script
EOF
RUN cat <<A > /a && cat <<B > /b
from a
A
from b
B
COPY <<plain.txt <<"raw.txt" /docs/
name is $NAME
plain.txt
name is $NAME
raw.txt
COPY --chmod=700 <<EOF /bin/hello
#!/bin/sh
echo hello
EOF
`;
    made("heredoc", { Dockerfile });
    expect(run("heredoc", "sh", "-c", "cat /one /script /a /b /docs/plain.txt /docs/raw.txt; hello")).toBe(
      "one\ntwo\nscript /dev/pipes/EOF\nfrom a\nfrom b\nname is x\nname is $NAME\nhello\n",
    );
  });

  test("COPY: wildcards, directories, modes, links, --chown, --chmod, --exclude, --parents; ADD unpacks archives", () => {
    const dir = context({
      Dockerfile: `FROM busybox
COPY *.txt d?r/ /w/
COPY dir /plain
COPY dir/one.sh /renamed
COPY --chown=7:8 --chmod=640 a.txt /owned/
COPY --exclude=*.log dir /less
COPY --parents dir/deep/x /p/
ADD packed.tar.gz /un/
ADD b.txt /added
`,
      "a.txt": "a",
      "b.txt": "b",
      "dir/one.sh": "1",
      "dir/two.log": "2",
      "dir/deep/x": "x",
      "pack/inside": "i",
    });
    symlinkSync("one.sh", join(dir, "dir/link"));
    sh(`chmod 755 ${dir}/dir/one.sh; tar -C ${dir}/pack -czf ${dir}/packed.tar.gz inside`);
    const result = build(dir, "-t", "copy");
    expect(result.stdout).toContain("Successfully built");
    const shown = run(
      "copy",
      "sh",
      "-c",
      "ls /w; stat -c '%a %u:%g' /owned/a.txt /renamed; readlink /plain/link; ls /less; cat /p/dir/deep/x /un/inside /added",
    );
    expect(shown).toBe("a.txt\nb.txt\ndeep\nlink\none.sh\ntwo.log\n640 7:8\n755 0:0\none.sh\ndeep\nlink\none.sh\nxib");
  });

  test("RUN --mount: bind from the context and a stage, cache, tmpfs; --network=none", () => {
    const Dockerfile = `FROM busybox AS tools
RUN mkdir /t && echo tool > /t/x
FROM busybox
RUN --mount=target=/src cat /src/f > /from-context
RUN --mount=from=tools,source=/t,target=/t cat /t/x > /from-stage
RUN --mount=type=cache,target=/cache echo x >> /cache/n; wc -l < /cache/n > /count
RUN --mount=type=tmpfs,target=/tt echo y > /tt/gone
RUN --network=none ip link | grep -c '^[0-9]' > /links
`;
    made("mounts", { Dockerfile, f: "ctx\n" });
    expect(run("mounts", "sh", "-c", "cat /from-context /from-stage /count /links; ls -d /tt /t /src /cache 2>/dev/null")).toBe(
      "ctx\ntool\n1\n1\n",
    );
    made("mounts", { Dockerfile, f: "ctx\n" }, "--no-cache");
    expect(run("mounts", "cat", "/count").trim()).toBe("2");
  });

  test("steps leave no mount points in the layers", () => {
    made("clean", { Dockerfile: "FROM busybox\nRUN true\nRUN touch /made\n" });
    // the first step changed nothing
    expect(inspect("clean").RootFS.Layers).toHaveLength(inspect("busybox").RootFS.Layers.length + 1);
  });

  test("SOURCE_DATE_EPOCH makes the same image twice", () => {
    const files = { Dockerfile: "FROM busybox\nRUN echo a > /a\nCOPY f /d/f\n", f: "" };
    made("epoch", files, "--build-arg", "SOURCE_DATE_EPOCH=1700000000", "--no-cache");
    const first = inspect("epoch").Id;
    made("epoch", files, "--build-arg", "SOURCE_DATE_EPOCH=1700000000", "--no-cache");
    expect(inspect("epoch").Id).toBe(first);
    expect(Date.parse(inspect("epoch").Created)).toBe(1700000000_000);
  });

  test("independent stages run side by side", () => {
    const Dockerfile = `FROM busybox AS a
RUN sleep 1; echo a > /a
FROM busybox AS b
RUN sleep 1; echo b > /b
FROM scratch
COPY --from=a /a /
COPY --from=b /b /
`;
    const start = performance.now();
    made("parallel", { Dockerfile });
    expect(performance.now() - start).toBeLessThan(1900);
  });

  test("-q gives the id only; -f and a Dockerfile on stdin", () => {
    const dir = context({ "other/File": "FROM busybox\nLABEL x=y\n" });
    expect(build(dir, "-q", "-f", join(dir, "other/File")).stdout).toMatch(/^sha256:[0-9a-f]{64}\n$/);
    const piped = engine.dockerWith({ env: { DOCKER_BUILDKIT: "0" }, input: "FROM busybox\nRUN echo piped\n" }, "build", "-");
    expect(piped.stdout).toContain("piped");
  });

  test("a client that goes away ends its build; nothing stays", async () => {
    const dir = context({ Dockerfile: "FROM busybox\nRUN echo begun; sleep 61.25\n" });
    const env = { ...process.env, DOCKER_BUILDKIT: "0" };
    const cli = spawn("docker", ["-H", engine.host, "build", dir], { env, stdio: ["ignore", "pipe", "ignore"] });
    await begun(cli);
    cli.kill("SIGKILL");
    const end = Date.now() + 10_000;
    while (runs("61.25") && Date.now() < end) await new Promise((resolve) => setTimeout(resolve, 50));
    expect(runs("61.25")).toBe(false);
  });

  test("ADD of an address: name, mode, checksum", () => {
    const server = createServer((_, answer) => answer.end("fetched\n")).listen(0, "127.0.0.1");
    const address = () => `http://127.0.0.1:${(server.address() as AddressInfo).port}/dir/file.txt`;
    const sum = new Bun.CryptoHasher("sha256").update("fetched\n").digest("hex");
    return serving(server, async () => {
      const good = `FROM busybox\nADD --checksum=sha256:${sum} ${address()} /d/\nADD ${address()} /named\n`;
      const built = await engine.dockerAsync("build", "-t", "fetch", context({ Dockerfile: good }));
      expect(built.stdout).toContain("Successfully built");
      expect(run("fetch", "sh", "-c", "cat /d/file.txt /named; stat -c %a /named")).toBe("fetched\nfetched\n600\n");
      const bad = `FROM busybox\nADD --checksum=sha256:${"0".repeat(64)} ${address()} /d/\n`;
      expect((await engine.dockerAsync("build", context({ Dockerfile: bad }))).stderr).toContain("digest mismatch");
    });
  });

  test("an engine that is killed in the middle of a step leaves nothing of it", async () => {
    const dir = context({ Dockerfile: "FROM busybox\nRUN echo begun; sleep 62.25\n" });
    const env = { ...process.env, DOCKER_BUILDKIT: "0" };
    const cli = spawn("docker", ["-H", engine.host, "build", dir], { env, stdio: ["ignore", "pipe", "ignore"] });
    await begun(cli);
    await engine.kill();
    cli.kill("SIGKILL");
    await engine.start();
    expect(runs("62.25")).toBe(false);
    for (const place of ["root/build", "exec/build"]) {
      expect(readdirSync(join(engine.dir, place)).filter((name) => name !== "mounts")).toEqual([]);
    }
    expect(made("after", { Dockerfile: "FROM busybox\nRUN echo works\n" }, "--no-cache")).toContain("works");
  });

  test("a context that breaks off, or leads out, leaves nothing", async () => {
    const socket = connect(engine.host.replace("unix://", ""));
    socket.write("POST /v1.50/build HTTP/1.1\r\nHost: d\r\nContent-Type: application/x-tar\r\nContent-Length: 100000\r\n\r\n");
    socket.write(Buffer.alloc(5000, 1));
    await new Promise((resolve) => setTimeout(resolve, 100));
    socket.destroy();
    const dir = context({ Dockerfile: "FROM busybox\nCOPY link/file /out\n" });
    symlinkSync("/etc", join(dir, "link"));
    writeFileSync(join(dir, "file"), "");
    const escaping = build(dir, "-t", "escape");
    expect(escaping.stderr).toContain("COPY failed");
    const left = () => readdirSync(join(engine.dir, "root/build")).filter((name) => name !== "mounts");
    const end = Date.now() + 5000;
    while (left().length > 0 && Date.now() < end) await new Promise((resolve) => setTimeout(resolve, 50));
    expect(left()).toEqual([]);
  });

  test("RUN --mount=readwrite: what is written is lost with the step", () => {
    const Dockerfile = `FROM busybox
RUN --mount=target=/src,rw echo changed > /src/f; cat /src/f > /seen
COPY f /f
`;
    made("readwrite", { Dockerfile, f: "original\n" });
    expect(run("readwrite", "cat", "/seen", "/f")).toBe("changed\noriginal\n");
  });

  test("POST /build/prune forgets the cache", async () => {
    const files = { Dockerfile: "FROM busybox\nRUN echo pruned > /p\n" };
    made("pruned", files);
    const answer = await fetch("http://docker/v1.50/build/prune", { method: "POST", unix: engine.host.replace("unix://", "") });
    expect(await answer.json()).toMatchObject({ CachesDeleted: expect.any(Array), SpaceReclaimed: expect.any(Number) });
    expect(made("pruned", files)).not.toContain("Using cache");
    expect(run("pruned", "cat", "/p")).toBe("pruned\n");
  });
});

/** Waits for the line "begun" in a program's output. */
function begun(program: ChildProcess): Promise<void> {
  return new Promise((resolve) => {
    let out = "";
    program.stdout!.on("data", (chunk) => {
      out += chunk;
      if (/^begun$/m.test(out)) resolve();
    });
  });
}

/** Whether `sleep SECONDS` runs. */
function runs(seconds: string): boolean {
  return readdirSync("/proc").some((pid) => /^\d+$/.test(pid) && commandOf(pid) === `sleep\0${seconds}\0`);
}

async function serving(server: Server, work: () => Promise<void>): Promise<void> {
  try {
    await new Promise<void>((resolve) => (server.listening ? resolve() : server.once("listening", resolve)));
    await work();
  } finally {
    server.close();
  }
}

function commandOf(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8");
  } catch {
    return "";
  }
}
