// Volumes of the local driver with type, device and o, as `docker volume create -o` gives them.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { lacks, startEngine, type TestEngine } from "./support/engine.ts";

describe.skipIf(lacks("docker"))("volumes with options", () => {
  let engine: TestEngine;
  const source = mkdtempSync(join(tmpdir(), "jubako-volume-source-"));
  beforeAll(async () => {
    engine = await startEngine();
    mkdirSync(join(source, "sub"));
    writeFileSync(join(source, "file"), "from the host\n");
  });
  afterAll(async () => {
    await engine?.stop();
    rmSync(source, { recursive: true, force: true });
  });

  const create = (name: string, options: Record<string, string>) =>
    engine.docker("volume", "create", ...Object.entries(options).flatMap(([key, value]) => ["-o", `${key}=${value}`]), name);
  const inside = (name: string, command: string) => engine.docker("run", "--rm", "-v", `${name}:/v`, "busybox", "sh", "-c", command);
  const mounts = () =>
    readFileSync("/proc/self/mounts", "utf8")
      .split("\n")
      .filter((line) => line.includes(engine.dir)).length;

  test("tmpfs: mounted with its options while containers use it, shared by them, gone with the last", () => {
    create("scratch", { type: "tmpfs", device: "tmpfs", o: "size=1m,uid=1000,noexec" });
    const before = mounts();
    engine.docker("run", "-d", "--name", "holder", "-v", "scratch:/v", "busybox", "sh", "-c", "echo kept > /v/file; exec sleep 1000");
    expect(inside("scratch", "grep ' /v ' /proc/mounts; stat -c %u /v; until cat /v/file; do :; done").stdout).toMatch(
      /^tmpfs \/v tmpfs \S*noexec\S*size=1024k,uid=1000\S* 0 0\n1000\nkept\n$/,
    );
    engine.docker("rm", "-f", "holder");
    expect(mounts()).toBe(before);
    expect(inside("scratch", "ls /v").stdout).toBe("");
    expect(engine.docker("volume", "rm", "scratch").status).toBe(0);
  });

  test("bind: the directory itself, read-only where asked, and missing", () => {
    create("here", { type: "none", device: source, o: "bind" });
    expect(inside("here", "cat /v/file; echo written > /v/new").stdout).toBe("from the host\n");
    expect(readFileSync(join(source, "new"), "utf8")).toBe("written\n");
    create("fixed", { type: "none", device: source, o: "bind,ro" });
    const before = mounts();
    const refused = inside("fixed", "cat /v/file; touch /v/x");
    expect([refused.stdout, refused.stderr]).toEqual(["from the host\n", "touch: /v/x: Read-only file system\n"]);
    expect(mounts()).toBe(before);
    create("missing", { type: "none", device: `${source}/none`, o: "bind" });
    const missing = inside("missing", "true");
    expect(missing.stderr).toMatch(
      /error while mounting volume '\S+': failed to mount local volume: mount \S+:\S+, flags: 0x1000: no such file or directory/,
    );
    expect(readFileSync(join(source, "file"), "utf8")).toBe("from the host\n");
  });

  test("network file systems: what the kernel and the resolver say", () => {
    create("nfs", { type: "nfs", device: ":/export", o: "addr=127.0.0.1,nolock,soft,timeo=1,retrans=0,port=1" });
    expect(inside("nfs", "true").stderr).toMatch(/failed to mount local volume: mount :\/export:\S+, data: addr=127.0.0.1,\S+: \w/);
    create("nameless", { type: "nfs", device: ":/export", o: "addr=no.such.host.invalid" });
    expect(inside("nameless", "true").stderr).toContain("error resolving passed in network volume address: lookup no.such.host.invalid");
    create("cifs", { type: "cifs", device: "//127.0.0.1/share", o: "addr=127.0.0.1,port=1,username=u,password=secret" });
    const cifs = inside("cifs", "true").stderr;
    expect(cifs).toContain("password=********");
    expect(cifs).not.toContain("secret");
  });

  test("options that make no sense are refused with Docker's sentences", () => {
    for (const [options, message] of [
      [{ o: "bind" }, 'missing required option: "device"'],
      [{ type: "tmpfs" }, 'missing required option: "device"'],
      [{ device: "/x" }, 'missing required option: "type"'],
      [{ foo: "1" }, 'invalid option: "foo"'],
      [{ size: "1m" }, "quota size requested but no quota support"],
    ] as [Record<string, string>, string][])
      expect(create("wrong", options).stderr).toBe(`Error response from daemon: create wrong: ${message}\n`);
  });
});
