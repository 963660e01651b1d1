// Images between the engines: what dockerd saves and pushes ours loads and pulls, and the other way round; the trees are the same.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { type Peer, startDockerd } from "../bench/support/peers.ts";
import { lacks, type Output, startEngine, type TestEngine } from "./support/engine.ts";
import { startRegistry, type TestRegistry } from "./support/registry.ts";

describe.skipIf(lacks("docker", "dockerd", "docker-registry", "skopeo"))("images between engines", () => {
  let engine: TestEngine;
  let dockerd: Peer;
  let registry: TestRegistry;
  beforeAll(async () => {
    [engine, registry] = await Promise.all([startEngine(), startRegistry()]);
    dockerd = await startDockerd();
  }, 60_000);
  afterAll(async () => {
    await engine?.stop();
    await registry?.[Symbol.asyncDispose]();
    await dockerd?.stop();
  }, 60_000);

  const at = (host: string) => (args: string[], input?: Uint8Array) => {
    const result = spawnSync("docker", ["-H", host, ...args], {
      maxBuffer: 256 << 20,
      timeout: 60_000,
      ...(input ? { input } : { stdio: ["ignore", "pipe", "pipe"] }),
    });
    const said: Output & { bytes: Buffer } = {
      status: result.status ?? 255,
      bytes: result.stdout,
      stdout: String(result.stdout),
      stderr: String(result.stderr),
    };
    if (said.status !== 0) throw new Error(`docker ${args.join(" ")}: ${said.status}: ${said.stderr}`);
    return said;
  };
  /** Every name below /t with what a layer carries of it. */
  const LOOK =
    'cd /t && find . | sort | while read -r f; do stat -c \'%n %a %u %g %h %s %Y %t:%T\' "$f"; [ -L "$f" ] && readlink "$f"; [ -f "$f" ] && md5sum "$f"; done; true';
  const BASE = `mkdir -p /t/a/b /t/gone/x /t/opaque /t/dir; echo one > /t/a/one; ln /t/a/one /t/a/two; ln -s ../a /t/dir/link; chmod 4751 /t/a/one; chown 5:6 /t/dir;
    mkfifo /t/pipe; mknod /t/null c 1 3; echo x > /t/opaque/old; echo g > /t/gone/x/f; head -c 300000 /dev/zero > "/t/a file"; touch -d '2001-02-03 04:05:06' /t/a/b`;
  const CHANGE = `rm -r /t/gone; rm -r /t/opaque; mkdir /t/opaque; echo y > /t/opaque/new; echo more >> /t/a/two; rm /t/pipe; chmod 700 /t/dir; mv "/t/a file" /t/moved;
    ln /t/moved /t/again; chown 9:9 /t/null`;

  /** An image of two steps, made by an engine's own commit. */
  const make = (docker: ReturnType<typeof at>, name: string) => {
    for (const [i, [from, script]] of [
      ["busybox", BASE],
      [`${name}-step`, CHANGE],
    ].entries()) {
      docker(["run", "--name", "maker", "--cap-add", "MKNOD", "--network", "none", from!, "sh", "-c", script!]);
      docker(["commit", "maker", i === 0 ? `${name}-step` : name]);
      docker(["rm", "maker"]);
    }
  };
  const look = (docker: ReturnType<typeof at>, name: string) => docker(["run", "--rm", "--network", "none", name, "sh", "-c", LOOK]).stdout;

  test("save and load, both ways", () => {
    const ours = at(engine.host);
    const theirs = at(dockerd.host);
    make(ours, "made:ours");
    make(theirs, "made:theirs");
    for (const [from, to, name] of [
      [ours, theirs, "made:ours"],
      [theirs, ours, "made:theirs"],
    ] as const) {
      const archive = from(["save", name]).bytes;
      expect(to(["load"], archive).stdout).toContain(`Loaded image: ${name}`);
      expect(to(["inspect", "-f", "{{.Id}}", name]).stdout).toBe(from(["inspect", "-f", "{{.Id}}", name]).stdout);
      const tree = look(from, name);
      expect(tree).toContain("/moved");
      expect([name, look(to, name)]).toEqual([name, tree]);
      to(["rmi", name]);
    }
  }, 120_000);

  test("push and pull, both ways; all tags; skopeo reads what is pushed", () => {
    const ours = at(engine.host);
    const theirs = at(dockerd.host);
    for (const [from, to, name] of [
      [ours, theirs, "made:ours"],
      [theirs, ours, "made:theirs"],
    ] as const) {
      const repository = `${registry.address}/${name.replace(":", "-")}`;
      for (const tag of ["1", "2"]) from(["tag", name, `${repository}:${tag}`]);
      const pushed = from(["push", "-a", repository]).stdout;
      expect(pushed).toMatch(/1: digest: sha256:[0-9a-f]{64} size: \d+/);
      expect(pushed).toMatch(/2: digest: sha256:[0-9a-f]{64} size: \d+/);
      const digest = /1: digest: (sha256:[0-9a-f]{64})/.exec(pushed)![1];
      expect(to(["pull", `${repository}:1`]).stdout).toContain(`Digest: ${digest}`);
      expect([name, look(to, `${repository}:1`)]).toEqual([name, look(from, name)]);
      expect(from(["inspect", "-f", "{{.RepoDigests}}", name]).stdout).toContain(`${repository}@${digest}`);
      const copied = spawnSync("skopeo", [
        "--insecure-policy",
        "copy",
        "--src-tls-verify=false",
        `docker://${repository}:2`,
        `dir:${join(registry.dir, name.replace(":", "-"))}`,
      ]);
      expect([name, copied.status]).toEqual([name, 0]);
    }
  }, 120_000);
});
