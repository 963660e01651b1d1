// Flags of buildx, bake and buildctl that reach the builder, on an engine that may grant everything to a step.
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { buildctl, buildx, startBuildx, type TestBuildx } from "./support/buildx.ts";
import { lacks, sh } from "./support/engine.ts";
import { startRegistry, type TestRegistry } from "./support/registry.ts";

setDefaultTimeout(60_000);

describe.skipIf(lacks("docker", "docker-registry", "skopeo") || buildx === undefined)("flags of builds", () => {
  let t: TestBuildx;
  let registry: TestRegistry;
  let settings: string;

  beforeAll(async () => {
    settings = mkdtempSync(join(tmpdir(), "jubako-flags-"));
    const config = join(settings, "daemon.json");
    writeFileSync(config, JSON.stringify({ builder: { entitlements: { "security-insecure": true } } }));
    [t, registry] = await Promise.all([startBuildx({ flags: ["--config-file", config] }), startRegistry()]);
  });
  afterAll(async () => {
    await t?.engine.stop();
    await registry?.[Symbol.asyncDispose]();
    rmSync(settings, { recursive: true, force: true });
    // As with any runtime, a parent that was named stays.
    sh("find /sys/fs/cgroup -depth -type d -path '*/jubakoflags*' -exec rmdir {} \\; 2>/dev/null");
  });

  test("limits, names of hosts, what is not taken from the cache", () => {
    const Dockerfile = `FROM busybox AS a
RUN cat /proc/uptime > /a
FROM a
RUN ulimit -n; ulimit -Hn; df /dev/shm | tail -1; grep foo /etc/hosts; cat /proc/self/cgroup
`;
    const dir = t.context({ Dockerfile });
    const flags = ["--ulimit", "nofile=77:88", "--shm-size", "12m", "--add-host", "foo:9.8.7.6", "--cgroup-parent", "/jubakoflags"];
    const said = t.ok(t.build(dir, ...flags));
    for (const text of [/ 77\n/, / 88\n/, /shm +12288 /, /9\.8\.7\.6\tfoo/, /\/jubakoflags\/[0-9a-f]{64}/]) expect(said).toMatch(text);
    const again = t.ok(t.build(dir, ...flags, "--no-cache-filter", "a"));
    expect(again).toMatch(/\[a 2\/2\] RUN[^\n]*\n#\d+ DONE/);
    expect(t.ok(t.build(dir, ...flags))).not.toMatch(/RUN[^\n]*\n#\d+ DONE/);
  });

  test("a step without a sandbox, where both the daemon and the client say so", () => {
    const dir = t.context({ Dockerfile: "FROM busybox\nRUN --security=insecure mkdir -p /mnt && mount -t tmpfs x /mnt && echo mounted\n" });
    expect(t.build(dir).stderr).toContain("security.insecure is not allowed");
    expect(t.ok(t.build(dir, "--allow", "security.insecure"))).toMatch(/\d mounted\n/);
  });

  test("bake: groups, inheritance, a matrix, functions, what the command line sets", () => {
    const dir = t.context({
      "docker-bake.hcl": `variable "TAG" { default = "dev" }
function "up" {
  params = [x]
  result = upper(x)
}
group "default" { targets = ["app", "m"] }
target "_common" { args = { A = "common" } }
target "app" {
  inherits = ["_common"]
  dockerfile-inline = "FROM busybox\\nARG A\\nARG B\\nRUN echo $A $B > /r\\n"
  args = { B = up(TAG) }
  tags = ["flags-app:\${TAG}"]
}
target "m" {
  name = "m-\${item}"
  matrix = { item = ["one", "two"] }
  inherits = ["app"]
  args = { B = item }
  tags = ["flags-m:\${item}"]
}
`,
    });
    const bake = (...args: string[]) => t.docker("buildx", "bake", "-f", join(dir, "docker-bake.hcl"), ...args);
    const meta = join(dir, "meta.json");
    t.ok(bake("--metadata-file", meta));
    for (const [image, words] of [
      ["flags-app:dev", "common DEV"],
      ["flags-m:one", "common one"],
      ["flags-m:two", "common two"],
    ])
      expect(t.run(image!, "cat", "/r")).toBe(`${words}\n`);
    expect(Object.keys(JSON.parse(readFileSync(meta, "utf8"))).sort()).toEqual(["app", "m-one", "m-two"]);
    t.ok(bake("--set", "app.args.A=set", "app"));
    expect(t.run("flags-app:dev", "cat", "/r")).toBe("set DEV\n");
    expect(t.ok(bake("--call", "check", "app"))).toContain("Check complete, no warnings found.");
  });

  test("imagetools: an index of images that were pushed apart", () => {
    const name = `${registry.address}/parts`;
    for (const platform of ["linux/amd64", "linux/386"]) {
      const dir = t.context({ Dockerfile: "FROM scratch\nCOPY f /\n", f: platform });
      t.ok(t.build(dir, "--platform", platform, "-t", `${name}:${platform.slice(6)}`, "--push"));
    }
    t.ok(t.docker("buildx", "imagetools", "create", "-t", `${name}:all`, "--annotation", "index:a=b", `${name}:amd64`, `${name}:386`));
    const index = JSON.parse(t.ok(t.docker("buildx", "imagetools", "inspect", "--raw", `${name}:all`)));
    expect(index.annotations).toEqual({ a: "b" });
    expect(index.manifests.map((each: { platform: { architecture: string } }) => each.platform.architecture)).toEqual(["amd64", "386"]);
  });

  test("du and prune with filters", () => {
    t.ok(t.build(t.context({ Dockerfile: "FROM busybox\nRUN echo one-to-go\nRUN echo one > /one-to-stay\n" })));
    const du = (filter: string) => t.ok(t.docker("buildx", "du", "--verbose", "--filter", filter));
    expect(du("description~=one-to-go")).toContain("one-to-go");
    expect(du("description~=one-to-go")).not.toContain("one-to-stay");
    expect(du("type=source.local")).not.toContain("one-to");
    t.ok(t.docker("buildx", "prune", "-f", "--filter", "until=24h"));
    t.ok(t.docker("buildx", "prune", "-f", "--reserved-space", "10gb"));
    expect(du("description~=one-to-go")).toContain("one-to-go");
    t.ok(t.docker("buildx", "prune", "-f", "--filter", "description~=one-to-go"));
    expect(du("description~=one-to")).not.toContain("one-to-go");
    expect(du("description~=one-to")).toContain("one-to-stay");
    t.ok(t.docker("buildx", "prune", "-f", "--max-used-space", "1"));
    expect(du("description~=one-to")).not.toContain("one-to-stay");
  });

  test.skipIf(!buildctl)("buildctl: caches of all kinds, in both modes, and one that can't be written", () => {
    const dir = t.context({ Dockerfile: "FROM busybox AS a\nRUN cat /proc/uptime > /a\nFROM busybox\nCOPY --from=a /a /b\n" });
    const local = ["--frontend", "dockerfile.v0", "--local", `context=${dir}`, "--local", `dockerfile=${dir}`];
    const ctl = (...args: string[]) =>
      spawnSync(buildctl!, ["--addr", t.engine.host, "build", "--progress", "plain", ...local, ...args], {
        encoding: "utf8",
        timeout: 60_000,
      });
    const to = (name: string) => `type=registry,ref=${registry.address}/${name}`;
    const places = { [`type=local,dest=${dir}/max,mode=max`]: [`type=local,src=${dir}/max`, true] } as Record<string, [string, boolean]>;
    places[`${to("max")},mode=max`] = [to("max"), true];
    places[`${to("index")},mode=max,image-manifest=false,oci-mediatypes=false`] = [to("index"), true];
    places[`${to("min")},mode=min`] = [to("min"), false];
    for (const place of Object.keys(places)) expect(ctl("--export-cache", place).status).toBe(0);
    for (const [from, whole] of Object.values(places)) {
      t.ok(t.docker("buildx", "prune", "-af"));
      const built = ctl("--import-cache", from);
      expect(built.status).toBe(0);
      // the least cache has nothing of a stage that is only copied from
      const found = /\[a 2\/2\] RUN[^\n]*\n#\d+ (?:sha256:[^\n]*\n#\d+ )*CACHED/.test(built.stderr);
      expect(found).toBe(whole);
    }
    const nowhere = "type=registry,ref=127.0.0.1:1/none";
    expect(ctl("--export-cache", nowhere).status).toBe(1);
    expect(ctl("--export-cache", `${nowhere},ignore-error=true`).status).toBe(0);
  });
});
