// `docker run --mount type=image`: an image's files in a container of another.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { lacks, sh, startEngine, type TestEngine, until } from "./support/engine.ts";

describe.skipIf(lacks("docker"))("images as mounts", () => {
  let engine: TestEngine;
  beforeAll(async () => {
    engine = await startEngine();
    const { status, stderr } = engine.dockerWith(
      {
        input: `FROM busybox AS files
RUN mkdir -p /out/subdir /out/hack && echo bar >/out/foo && echo world >/out/subdir/hello && ln -s ../subdir /out/hack/good && ln -s ../../../../../etc /out/hack/bad
FROM scratch
COPY --from=files /out /
COPY --from=files /out/foo /second
`,
        env: { DOCKER_BUILDKIT: "0" },
      },
      "build",
      "-q",
      "-t",
      "files",
      "-",
    );
    if (status !== 0) throw new Error(stderr);
  });
  afterAll(() => engine?.stop());

  const mounts = () =>
    readFileSync("/proc/self/mounts", "utf8")
      .split("\n")
      .filter((line) => line.includes(`${engine.dir}/exec/image-views`)).length;
  const run = (option: string, ...command: string[]) =>
    engine.docker("run", "--rm", "--mount", `type=image,source=files,target=/image${option}`, "busybox", ...command);

  test("all of its layers, read-only, at several places", () => {
    const script = "cat /image/foo /image/second /again/subdir/hello; touch /image/x; rm /again/foo; ls /image";
    const { stdout, stderr } = engine.docker(
      ...["run", "--rm", "--mount", "type=image,source=files,target=/image", "--mount", "type=image,source=files,target=/again"],
      ...["busybox", "sh", "-c", script],
    );
    expect(stdout).toBe("bar\nbar\nworld\nfoo\nhack\nsecond\nsubdir\n");
    expect(stderr).toBe("touch: /image/x: Read-only file system\nrm: can't remove '/again/foo': Read-only file system\n");
    expect(mounts()).toBe(0);
  });

  test("a part of it; links in it stay inside; a part that is missing", () => {
    expect(run(",image-subpath=subdir", "cat", "/image/hello").stdout).toBe("world\n");
    expect(run(",image-subpath=hack/good", "ls", "/image").stdout).toBe("hello\n");
    expect(run(",image-subpath=foo", "cat", "/image").stdout).toBe("bar\n");
    for (const part of ["hack/bad", "none"]) {
      const refused = run(`,image-subpath=${part}`, "true");
      expect(refused.status).not.toBe(0);
      expect(refused.stderr).toContain(`${part}: no such file or directory`);
    }
    expect(run(",image-subpath=../x", "true").stderr).toContain("invalid subpath: must be a relative path within the image");
    expect(mounts()).toBe(0);
  });

  test("an image that is missing; options of other kinds; an older client", () => {
    const missing = engine.docker("create", "--pull=never", "--mount", "type=image,source=none,target=/image", "busybox");
    expect(missing.stderr).toContain("No such image: none:latest");
    const volume = engine.docker("create", "--mount", "type=image,target=/image", "busybox");
    expect(volume.stderr).toContain('invalid mount config for type "image": field Source must not be empty');
    const older = engine.dockerWith(
      { env: { DOCKER_API_VERSION: "1.47" } },
      "create",
      "--mount",
      "type=image,source=files,target=/i",
      "busybox",
    );
    expect(older.stderr).toContain('Mount type "Image" needs API v1.48 or newer');
    expect(engine.docker("ps", "-aq").stdout).toBe("");
  });

  test("the mounts of another container", () => {
    const mounts = [
      "--mount",
      "type=image,source=files,target=/one",
      "--mount",
      "type=image,source=files,target=/two,image-subpath=subdir",
    ];
    engine.docker("create", "--name", "donor", ...mounts, "busybox");
    const { stdout, stderr } = engine.docker("run", "--rm", "--volumes-from", "donor", "busybox", "cat", "/one/foo", "/two/hello");
    expect([stdout, stderr]).toEqual(["bar\nworld\n", ""]);
    const own = engine.docker(
      "run",
      "--rm",
      "--volumes-from",
      "donor",
      "--mount",
      "type=tmpfs,target=/one",
      "busybox",
      "ls",
      "/one",
      "/two",
    );
    expect(own.stdout).toBe("/one:\n\n/two:\nhello\n");
    engine.docker("rm", "-f", "donor");
  }, 30_000);

  test("inspect; the image is in use, and stays as long as it is mounted", async () => {
    engine.docker("tag", "files", "doomed");
    engine.docker("rmi", "files");
    const mount = ["--mount", "type=image,source=doomed,target=/image"];
    engine.docker("run", "-d", "--name", "holder", ...mount, "busybox", "sh", "-c", "cat /image/foo; exec sleep 1000");
    const [point] = JSON.parse(engine.docker("inspect", "-f", "{{json .Mounts}}", "holder").stdout);
    expect(point).toEqual({
      Type: "image",
      Name: "doomed",
      Source: expect.stringContaining(engine.dir),
      Destination: "/image",
      Mode: "",
      RW: false,
      Propagation: "rprivate",
    });
    expect(readdirSync(point.Source)).toContain("foo");
    expect(engine.docker("rmi", "doomed").stderr).toMatch(/is using its referenced image/);
    const forced = engine.docker("rmi", "-f", "doomed");
    expect([forced.status, forced.stdout]).toEqual([0, "Untagged: doomed:latest\n"]);

    // a killed engine: the container runs on with its files, and can be started again
    await engine.kill();
    await engine.start();
    expect(engine.docker("exec", "holder", "cat", "/image/subdir/hello").stdout).toBe("world\n");
    expect(mounts()).toBe(1);
    expect(engine.docker("restart", "-t", "0", "holder").stderr).toBe("");
    expect(engine.docker("exec", "holder", "cat", "/image/foo").stdout).toBe("bar\n");
    expect(mounts()).toBe(1);

    // one that ended while no engine looked leaves nothing mounted
    const pid = Number(engine.docker("inspect", "-f", "{{.State.Pid}}", "holder").stdout);
    await engine.kill();
    process.kill(pid, "SIGKILL");
    await engine.start();
    expect(mounts()).toBe(0);
    engine.docker("start", "holder");
    expect(engine.docker("exec", "holder", "cat", "/image/foo").stdout).toBe("bar\n");
    engine.docker("rm", "-f", "holder");
    expect(mounts()).toBe(0);
    expect(readdirSync(join(engine.dir, "exec/image-views"))).toEqual([]);
    if (!lacks("ctr"))
      await until(
        "the view is gone",
        () => !sh(`ctr -a ${engine.dir}/exec/containerd.sock -n moby snapshots ls`).stdout.includes("-image-"),
      );
    engine.docker("image", "prune", "-f");
    expect(engine.docker("images", "-aq").stdout.trim().split("\n")).toHaveLength(1);
  }, 60_000);
});
