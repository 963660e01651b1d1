// Source policies, by the real buildx and buildctl: what a build may have from outside, and what it gets instead.
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { execFile, spawnSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import { join } from "node:path";
import { digestOf } from "../src/oci/index.ts";
import { buildctl, buildx, startBuildx, type TestBuildx } from "./support/buildx.ts";
import { lacks, type Output } from "./support/engine.ts";
import { startRegistry, type TestRegistry } from "./support/registry.ts";

setDefaultTimeout(60_000);

interface Rule {
  action: "ALLOW" | "DENY" | "CONVERT";
  selector: { identifier: string; match_type?: "EXACT" | "REGEX" | "WILDCARD"; constraints?: object[] };
  updates?: { identifier?: string; attrs?: Record<string, string> };
}

describe.skipIf(lacks("docker", "docker-registry", "skopeo") || buildx === undefined)("source policies", () => {
  let t: TestBuildx;
  let registry: TestRegistry;
  let server: Server;
  let site: string;

  beforeAll(async () => {
    [t, registry] = await Promise.all([startBuildx(), startRegistry()]);
    registry.push("mirror/alpine:3");
    server = createServer((_, answer) => answer.end("from the site"));
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    site = `http://127.0.0.1:${(server.address() as { port: number }).port}`;
  });
  afterAll(async () => {
    server?.close();
    await t?.engine.stop();
    await registry?.[Symbol.asyncDispose]();
  });

  function policy(dir: string, rules: Rule[]): string {
    const place = join(dir, "policy.json");
    // protobuf's names of numbers are what Go's JSON of them takes
    writeFileSync(place, JSON.stringify({ version: 1, rules }));
    return place;
  }
  /** The site is of this process: nothing may wait for docker in the way that spawnSync does. */
  function build(Dockerfile: string, rules: Rule[], ...args: string[]): Promise<Output> {
    const dir = t.context({ Dockerfile });
    const env = { ...process.env, ...t.env, EXPERIMENTAL_BUILDKIT_SOURCE_POLICY: policy(dir, rules) };
    const all = ["-H", t.engine.host, "buildx", "build", "--progress", "plain", ...args, dir];
    return new Promise((resolve) =>
      execFile("docker", all, { env, timeout: 60_000 }, (error, stdout, stderr) =>
        resolve({ status: error ? Number(error.code ?? 255) : 0, stdout, stderr }),
      ),
    );
  }
  const image = (ref: string) => `docker-image://${ref}`;

  test("deny, and allow after it: the last rule that matches counts", async () => {
    const rules: Rule[] = [{ action: "DENY", selector: { identifier: image("docker.io/library/busybox*") } }];
    const denied = await build("FROM busybox\n", rules);
    expect(denied.status).toBe(1);
    expect(denied.stderr).toContain(
      'could not resolve image due to policy: source "docker-image://docker.io/library/busybox:latest" denied by policy',
    );
    expect(denied.stderr).toContain(">>> FROM busybox");
    t.ok(await build("FROM busybox\n", [...rules, { action: "ALLOW", selector: { identifier: "busybox", match_type: "REGEX" } }]));
    t.ok(
      await build("FROM busybox\n", [
        { action: "DENY", selector: { identifier: image("docker.io/library/busybox"), match_type: "EXACT" } },
      ]),
    );
    const exact = image("docker.io/library/busybox:latest");
    const copying = await build("FROM scratch\nCOPY --from=busybox /bin/sh /\n", [
      { action: "DENY", selector: { identifier: exact, match_type: "EXACT" } },
    ]);
    expect(copying.status).toBe(1);
  });

  test("convert: another image stands for the one that the Dockerfile names", async () => {
    const to = image(`${registry.address}/mirror`);
    const from = image("docker.io/library");
    const cases: Rule[] = [
      { action: "CONVERT", selector: { identifier: `${from}/*` }, updates: { identifier: `${to}/\${1}` } },
      {
        action: "CONVERT",
        selector: { identifier: `^${from}/(?P<name>[a-z]+):(.*)$`, match_type: "REGEX" },
        updates: { identifier: `${to}/\${name}:$2` },
      },
      { action: "CONVERT", selector: { identifier: `${from}/alpine:3`, match_type: "EXACT" }, updates: { identifier: `${to}/alpine:3` } },
    ];
    for (const rule of cases) {
      const built = await build("FROM alpine:3\nRUN echo converted > /c\n", [rule], "-t", "converted");
      expect(t.ok(built)).toContain(`FROM ${registry.address}/mirror/alpine:3@sha256:`);
      expect(t.run("converted", "cat", "/c")).toBe("converted\n");
    }
    const round: Rule = {
      action: "CONVERT",
      selector: { identifier: "(.*)alpine", match_type: "REGEX" },
      updates: { identifier: "$1-alpine" },
    };
    expect((await build("FROM alpine:3\n", [round])).stderr).toContain("too many mutations on a single source");
    expect((await build("FROM alpine:3\n", [{ action: "CONVERT", selector: { identifier: `${from}/alpine:*` } }])).stderr).toContain(
      "missing destination for convert rule",
    );
    expect((await build("FROM alpine:3\n", [{ action: "DENY", selector: { identifier: "a**" } }])).stderr).toContain(
      'invalid wildcard: "**"',
    );
  });

  test("addresses: constraints of attributes, and checksums that a policy demands", async () => {
    const Dockerfile = `FROM scratch\nADD ${site}/f /f\n`;
    const identifier = `${site}/f`;
    const digest = digestOf("from the site");
    const unchecked = {
      action: "DENY" as const,
      selector: { identifier, constraints: [{ key: "http.checksum", value: "^sha256:", condition: "MATCHES" }] },
    };
    t.ok(await build(Dockerfile, [unchecked]));
    const demand = {
      ...unchecked,
      selector: { identifier, constraints: [{ key: "http.checksum", value: digest, condition: "NOTEQUAL" }] },
    };
    const denied = await build(Dockerfile, [demand]);
    expect(denied.stderr).toContain(`error evaluating the source policy: source ${JSON.stringify(identifier)} denied by policy`);
    t.ok(await build(`FROM scratch\nADD --checksum=${digest} ${site}/f /f\n`, [demand]));
    const pin = (value: string): Rule => ({ action: "CONVERT", selector: { identifier }, updates: { attrs: { "http.checksum": value } } });
    const out = join(t.engine.dir, "pinned");
    t.ok(await build(Dockerfile, [pin(digest)], "-o", out));
    expect(readFileSync(join(out, "f"), "utf8")).toBe("from the site");
    const wrong = await build(Dockerfile, [pin(digestOf("other"))], "-o", out);
    expect(wrong.status).toBe(1);
    expect(wrong.stderr).toContain("digest mismatch");
  });

  test.skipIf(!buildctl)("buildctl --source-policy-file", () => {
    const dir = t.context({ Dockerfile: "FROM busybox\n" });
    const rules: Rule[] = [{ action: "DENY", selector: { identifier: "*busybox*" } }];
    const local = ["--frontend", "dockerfile.v0", "--local", `context=${dir}`, "--local", `dockerfile=${dir}`];
    const args = ["--addr", t.engine.host, "build", ...local, "--source-policy-file", policy(dir, rules)];
    const denied = spawnSync(buildctl!, args, { encoding: "utf8", timeout: 60_000 });
    expect(denied.status).toBe(1);
    expect(denied.stderr).toContain("denied by policy");
  });
});
