// The disk fills up: while an image is loaded, and while a container writes. Both are said, nothing is left behind, and the engine goes on.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { busyboxTar, lacks, sh, startEngine, type TestEngine } from "./support/engine.ts";

describe.skipIf(lacks("docker"))("a full disk", () => {
  const dir = mkdtempSync(join(tmpdir(), "jubako-full-"));
  let engine: TestEngine | undefined;
  beforeAll(async () => {
    const mounted = sh(`mount -t tmpfs -o size=24m jubako-full ${dir}`);
    if (mounted.status !== 0) throw new Error(mounted.stderr);
    engine = await startEngine({ flags: ["--data-root", dir] });
  });
  afterAll(async () => {
    await engine?.stop();
    sh(`umount -l ${dir}`);
    rmSync(dir, { recursive: true, force: true });
  });

  test("a container that writes too much is told so, and its files go with it", () => {
    const written = engine!.docker("run", "--rm", "busybox", "dd", "if=/dev/zero", "of=/big", "bs=1M", "count=64");
    expect(written.status).toBe(1);
    expect(written.stderr).toContain("No space left on device");
    expect(engine!.docker("run", "--rm", "busybox", "echo", "space again").stdout).toBe("space again\n");
  });

  test("an image that does not fit fails to load with a reason, and leaves none of it", () => {
    const before = engine!.docker("images", "-q").stdout;
    const big = join(dir, "..", `jubako-big-${process.pid}`);
    const made = sh(
      `mkdir -p ${big} && head -c 67108864 /dev/urandom > ${big}/file && tar -C ${big} -c file | docker -H ${engine!.host} import - big:1`,
    );
    sh(`rm -rf ${big}`);
    expect(made.status).toBe(1);
    expect(made.stderr).toContain("no space left on device");
    expect(engine!.docker("images", "-q").stdout).toBe(before);
    expect(engine!.docker("run", "--rm", "busybox", "echo", "goes on").stdout).toBe("goes on\n");
    expect(engine!.dockerWith({ input: busyboxTar() }, "load").status).toBe(0);
  });
});
