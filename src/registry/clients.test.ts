// Real clients, our own, and the originals' registry over the same directory.
import { afterAll, expect, test } from "bun:test";
import { spawn, spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { type ClientRequest, createServer as createPlainServer, type IncomingMessage, type Server } from "node:http";
import { Agent, request } from "node:https";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openRepository } from "../distribution/index.ts";
import { digestOf, MEDIA, parseTagged } from "../oci/index.ts";
import { type Config, defaults, parseConfig, parseDuration, parseSize } from "./config.ts";
import { pushBlob, pushImage, type Served, serveRegistry } from "./testing.ts";

const dir = mkdtempSync(join(tmpdir(), "jubako-registry-clients-"));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const onPath = (program: string) => spawnSync("sh", ["-c", `command -v ${program}`]).status === 0;
const missing = (...programs: string[]) => programs.some((program) => !onPath(program));

/** Runs a client without blocking the server, which is in this process. */
async function run(program: string, args: string[], env: Record<string, string> = {}): Promise<string> {
  const child = Bun.spawn([program, ...args], { stdout: "pipe", stderr: "pipe", env: { ...process.env, ...env } });
  const [out, err] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text()]);
  if ((await child.exited) !== 0) throw new Error(`${program} ${args.join(" ")}: ${err}`);
  return out;
}

/** An OCI layout of one image in `dir`/oci, made by ourselves. */
function layout(): string {
  const path = join(dir, "oci");
  mkdirSync(join(path, "blobs/sha256"), { recursive: true });
  const put = (bytes: Buffer | string) => {
    const digest = digestOf(bytes);
    writeFileSync(join(path, "blobs/sha256", digest.slice(7)), bytes);
    return { digest, size: Buffer.byteLength(bytes) };
  };
  const layer = Buffer.alloc(3 << 20, "not really a tar, but clients don't look ");
  const config = JSON.stringify({
    architecture: "amd64",
    os: "linux",
    config: {},
    rootfs: { type: "layers", diff_ids: [digestOf(layer)] },
  });
  const manifest = JSON.stringify({
    schemaVersion: 2,
    mediaType: MEDIA.ociManifest,
    config: { mediaType: MEDIA.ociConfig, ...put(config) },
    layers: [{ mediaType: MEDIA.ociLayer, ...put(layer) }],
  });
  writeFileSync(join(path, "oci-layout"), '{"imageLayoutVersion":"1.0.0"}');
  const entry = { mediaType: MEDIA.ociManifest, ...put(manifest), annotations: { "org.opencontainers.image.ref.name": "v1" } };
  writeFileSync(join(path, "index.json"), JSON.stringify({ schemaVersion: 2, manifests: [entry] }));
  return path;
}

test.skipIf(missing("skopeo"))("skopeo pushes, inspects, copies between repositories, pulls and deletes", async () => {
  await using served = await serveRegistry();
  const at = `docker://${served.registry.address}`;
  await run("skopeo", ["copy", "--dest-tls-verify=false", "--dest-compress", `oci:${layout()}:v1`, `${at}/skopeo/app:v1`]);
  await run("skopeo", ["copy", "--src-tls-verify=false", "--dest-tls-verify=false", `${at}/skopeo/app:v1`, `${at}/skopeo/copy:v2`]);
  const inspected = JSON.parse(await run("skopeo", ["inspect", "--tls-verify=false", `${at}/skopeo/copy:v2`])) as { RepoTags: string[] };
  expect(inspected.RepoTags).toEqual(["v2"]);
  await run("skopeo", ["copy", "--src-tls-verify=false", `${at}/skopeo/copy:v2`, `dir:${dir}/pulled`]);
  await run("skopeo", ["delete", "--tls-verify=false", `${at}/skopeo/copy:v2`]);
  expect((await served.ask("GET", "/v2/skopeo/copy/manifests/v2")).status).toBe(404);
});

test.skipIf(missing("crane"))("crane pushes, mounts, lists, pulls and deletes", async () => {
  await using served = await serveRegistry();
  const at = served.registry.address;
  await run("crane", ["push", "--insecure", layout(), `${at}/crane/app:v1`]);
  await run("crane", ["copy", "--insecure", `${at}/crane/app:v1`, `${at}/crane/other:v1`]);
  expect(await run("crane", ["catalog", "--insecure", at])).toBe("crane/app\ncrane/other\n");
  expect(await run("crane", ["ls", "--insecure", `${at}/crane/other`])).toBe("v1\n");
  await run("crane", ["pull", "--insecure", "--format=oci", `${at}/crane/other:v1`, join(dir, "crane")]);
  const digest = (await run("crane", ["digest", "--insecure", `${at}/crane/other:v1`])).trim();
  await run("crane", ["delete", "--insecure", `${at}/crane/other@${digest}`]);
  expect((await served.ask("GET", "/v2/crane/other/manifests/v1")).status).toBe(404);
});

test("our own client pushes and pulls", async () => {
  await using served = await serveRegistry();
  const reference = parseTagged(`${served.registry.address}/own/app:v1`);
  const config = { insecure: [], mirrors: [] };
  const repository = openRepository(reference, config, undefined, "push");
  const bytes = Buffer.alloc(2 << 20, "layer");
  const layer = { mediaType: MEDIA.ociLayer, digest: digestOf(bytes), size: bytes.length };
  async function* pieces() {
    for (let at = 0; at < bytes.length; at += 100_000) yield bytes.subarray(at, at + 100_000);
  }
  expect(await repository.push(layer, pieces)).toBe("pushed");
  expect(await repository.push(layer, pieces)).toBe("exists");
  const manifest = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: MEDIA.ociManifest, config: layer, layers: [layer] }));
  await repository.pushManifest({ mediaType: MEDIA.ociManifest, digest: digestOf(manifest), size: manifest.length }, manifest, "v1");
  const other = openRepository(parseTagged(`${served.registry.address}/own/other:v1`), config, undefined, "push");
  expect(await other.push(layer, pieces, { from: "own/app" })).toBe("mounted");
  const pulling = openRepository(reference, config);
  expect((await pulling.manifest("v1")).descriptor.digest).toBe(digestOf(manifest));
  expect(digestOf(await pulling.blob(layer, 4 << 20))).toBe(layer.digest);
});

test.skipIf(missing("docker-registry", "skopeo"))(
  "the CNCF registry serves a directory that we filled, and we one that it filled",
  async () => {
    const root = join(dir, "shared");
    let image: { digest: string; bytes: string; layer: string };
    {
      await using served = await serveRegistry({ root });
      image = await pushImage(served, "ours/app", "v1");
    }
    const probe = createPlainServer().listen(0, "127.0.0.1");
    await new Promise((resolve) => probe.once("listening", resolve));
    const { port } = probe.address() as AddressInfo;
    await new Promise((resolve) => probe.close(resolve));
    const text = `version: 0.1\nlog: { level: error }\nstorage:\n  filesystem: { rootdirectory: ${root} }\n  delete: { enabled: true }\nhttp: { addr: "127.0.0.1:${port}" }\n`;
    writeFileSync(join(dir, "theirs.yml"), text);
    const child = spawn("docker-registry", ["serve", join(dir, "theirs.yml")], { stdio: "ignore" });
    try {
      const base = `http://127.0.0.1:${port}`;
      for (let tries = 0; tries < 100 && !(await fetch(`${base}/v2/`).catch(() => undefined))?.ok; tries++) await Bun.sleep(50);
      const manifest = await fetch(`${base}/v2/ours/app/manifests/v1`, { headers: { accept: MEDIA.ociManifest } });
      expect(await manifest.text()).toBe(image.bytes);
      expect(await (await fetch(`${base}/v2/ours/app/blobs/${image.layer}`)).text()).toBe("layer");
      expect(await (await fetch(`${base}/v2/ours/app/tags/list`)).json()).toEqual({ name: "ours/app", tags: ["v1"] });
      await run("skopeo", ["copy", "--dest-tls-verify=false", `oci:${layout()}:v1`, `docker://127.0.0.1:${port}/theirs/app:v1`]);
    } finally {
      child.kill("SIGTERM");
      await new Promise((resolve) => child.once("exit", resolve));
    }
    const { config } = parseConfig(readFileSync(join(dir, "theirs.yml"), "utf8"));
    expect([config.root, config.address, config.mayDelete]).toEqual([root, `127.0.0.1:${port}`, true]);
    await using served = await serveRegistry({ root, graceMs: 0 });
    const pulled = await served.ask("GET", "/v2/theirs/app/manifests/v1");
    expect([pulled.status, pulled.headers.get("content-type")]).toEqual([200, MEDIA.ociManifest]);
    const { layers } = (await pulled.json()) as { layers: { digest: string }[] };
    expect(await served.registry.collect({ dryRun: false, deleteUntagged: true })).toMatchObject({ manifests: 0, blobs: 0 });
    const blob = await served.ask("GET", `/v2/theirs/app/blobs/${layers[0]!.digest}`);
    expect(digestOf(new Uint8Array(await blob.arrayBuffer()))).toBe(layers[0]!.digest);
  },
);

/** Connections that are kept alive don't hold up the end; a request that is under way is waited for. */
async function endsAtOnce(tls: Config["tls"], ca: Buffer): Promise<void> {
  const served = await serveRegistry({ tls, drainMs: 5000 });
  const bytes = Buffer.alloc(1000, "slowly ");
  const agent = new Agent({ keepAlive: true, ca });
  try {
    const ask = (method: string, path: string, body?: (request: ClientRequest) => void) =>
      new Promise<IncomingMessage>((resolve, reject) => {
        const asked = request(`https://${served.registry.address}${path}`, { agent, method }, (response) => {
          response.resume();
          response.on("end", () => resolve(response));
        });
        asked.on("error", reject);
        if (body) body(asked);
        else asked.end();
      });
    const begun = await ask("POST", "/v2/ends/app/blobs/uploads/");
    let closing: Promise<void> | undefined;
    const put = await ask("PUT", `${begun.headers.location}?digest=${digestOf(bytes)}`, (asked) => {
      asked.write(bytes.subarray(0, 500));
      setTimeout(() => {
        closing = served.stop();
      }, 100);
      setTimeout(() => asked.end(bytes.subarray(500)), 200);
    });
    expect(put.statusCode).toBe(201);
    const from = performance.now();
    await closing;
    expect(performance.now() - from).toBeLessThan(2000);
  } finally {
    agent.destroy();
    await served[Symbol.asyncDispose]();
  }
}

/** A blob up and down and an answer that refuses an upload, by curl in both versions of HTTP. */
async function bothVersions(served: Served, ca: string): Promise<void> {
  const base = `https://${served.registry.address}`;
  const bytes = Buffer.alloc(5 << 20, "up and down ");
  const file = join(dir, "both");
  writeFileSync(file, bytes);
  for (const [flag, version] of [
    ["--http1.1", "1.1"],
    ["--http2", "2"],
  ] as const) {
    const curl = (...args: string[]) => run("curl", ["-sS", "--cacert", ca, flag, "-w", " %{http_version} %{http_code}", ...args]);
    const name = `both/v${version[0]}`;
    const up = (digest: string, ...more: string[]) =>
      curl("-X", "POST", "--data-binary", `@${file}`, ...more, `${base}/v2/${name}/blobs/uploads/?digest=${digest}`);
    expect(await up(digestOf(bytes))).toBe(` ${version} 201`);
    const down = join(dir, `both-${version}`);
    expect(await curl("-o", down, `${base}/v2/${name}/blobs/${digestOf(bytes)}`)).toBe(` ${version} 200`);
    expect(digestOf(readFileSync(down))).toBe(digestOf(bytes));
    const begun = await curl("-D", "-", "-o", "/dev/null", "-X", "POST", `${base}/v2/${name}/blobs/uploads/`);
    const location = /^location: (\S+)/im.exec(begun)![1]!;
    // Without a length announced.
    expect(
      await run("sh", [
        "-c",
        `cat ${file} | curl -sS --cacert ${ca} ${flag} -w ' %{http_code}' -T - ${base}${location}?digest=${digestOf(bytes)}`,
      ]),
    ).toBe(" 201");
    expect(await up(digestOf("other"))).toContain(`DIGEST_INVALID`);
  }
}

test.skipIf(missing("openssl", "skopeo"))("TLS, also with certificates of clients", async () => {
  const file = (name: string) => join(dir, name);
  const openssl = (...args: string[]) => {
    const result = spawnSync("openssl", args, { encoding: "utf8" });
    if (result.status !== 0) throw new Error(result.stderr);
  };
  const days = ["-days", "2"];
  openssl(
    "req",
    "-x509",
    "-newkey",
    "rsa:2048",
    "-nodes",
    "-keyout",
    file("ca.key"),
    "-out",
    file("ca.crt"),
    "-subj",
    "/CN=test ca",
    ...days,
  );
  for (const name of ["server", "client"]) {
    openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", file(`${name}.key`), "-out", file(`${name}.csr`), "-subj", `/CN=${name}`);
    writeFileSync(file("ext"), "subjectAltName=IP:127.0.0.1\n");
    const signer = ["-CA", file("ca.crt"), "-CAkey", file("ca.key"), "-CAcreateserial", "-extfile", file("ext"), ...days];
    openssl("x509", "-req", "-in", file(`${name}.csr`), "-out", file(`${name}.crt`), ...signer);
  }
  const tls = {
    certificate: file("server.crt"),
    key: file("server.key"),
    clientCAs: [] as string[],
    minimum: "TLSv1.2" as const,
    http2: true,
  };
  {
    await using served = await serveRegistry({ tls });
    const certs = join(dir, "certs");
    mkdirSync(certs, { recursive: true });
    writeFileSync(join(certs, "ca.crt"), readFileSync(file("ca.crt")));
    const to = `docker://${served.registry.address}/tls/app:v1`;
    await run("skopeo", ["copy", "--dest-cert-dir", certs, `oci:${layout()}:v1`, to]);
    await run("skopeo", ["copy", "--src-cert-dir", certs, to, `dir:${dir}/tls-pulled`]);
    if (!missing("curl")) await bothVersions(served, file("ca.crt"));
    for (const http2 of [true, false]) await endsAtOnce({ ...tls, http2 }, readFileSync(file("ca.crt")));
    const plain = await fetch(`http://${served.registry.address}/v2/`);
    expect([plain.status, await plain.text()]).toEqual([400, "Client sent an HTTP request to an HTTPS server.\n"]);
  }
  await using served = await serveRegistry({ tls: { ...tls, clientCAs: [file("ca.crt")] } });
  const ask = (pair: object) =>
    new Promise<number | string>((resolve) => {
      const asked = request(`https://${served.registry.address}/v2/`, { ca: readFileSync(file("ca.crt")), ...pair }, (response) => {
        response.resume();
        resolve(response.statusCode ?? 0);
      });
      asked.on("error", () => resolve("refused"));
      asked.end();
    });
  expect(await ask({})).toBe("refused");
  expect(await ask({ cert: readFileSync(file("client.crt")), key: readFileSync(file("client.key")) })).toBe(200);
});

test("webhooks: the CNCF registry's envelope, in order, tried until they are taken", async () => {
  interface Event {
    action: string;
    target: { repository: string; digest: string; tag?: string; mediaType: string; size: number; fromRepository?: string };
    request: { method: string; addr: string };
  }
  const got: Event[] = [];
  let refusals = 2;
  const hook: Server = createPlainServer(async (incoming, response) => {
    let text = "";
    for await (const piece of incoming) text += piece;
    if (refusals-- > 0) return void response.writeHead(500).end();
    expect([incoming.headers["content-type"], incoming.headers.authorization]).toEqual([
      "application/vnd.docker.distribution.events.v2+json",
      "Bearer x",
    ]);
    got.push(...(JSON.parse(text) as { events: Event[] }).events);
    response.end();
  }).listen(0, "127.0.0.1");
  await new Promise((resolve) => hook.once("listening", resolve));
  const url = `http://127.0.0.1:${(hook.address() as AddressInfo).port}/`;
  const endpoint = {
    name: "hook",
    url,
    headers: { Authorization: ["Bearer x"] },
    timeoutMs: 1000,
    threshold: 5,
    backoffMs: 50,
    ignoredMediaTypes: [],
    ignoredActions: [],
  };
  try {
    await using served = await serveRegistry({ endpoints: [endpoint] });
    const image = await pushImage(served, "events/app", "v1");
    await served.ask("GET", "/v2/events/app/manifests/v1");
    await served.ask("POST", `/v2/events/other/blobs/uploads/?mount=${image.layer}&from=events/app`);
    await served.ask("DELETE", `/v2/events/app/manifests/${image.digest}`);
    for (let tries = 0; tries < 100 && got.length < 7; tries++) await Bun.sleep(20);
    expect(got.map((event) => event.action)).toEqual(["push", "push", "push", "pull", "mount", "delete", "delete"]);
    expect(got[2]!.target).toMatchObject({
      repository: "events/app",
      digest: image.digest,
      tag: "v1",
      mediaType: MEDIA.ociManifest,
      size: image.bytes.length,
    });
    expect(got[4]!.target).toMatchObject({ repository: "events/other", fromRepository: "events/app" });
    expect([got[3]!.request.method, /^127\.0\.0\.1:\d+$/.test(got[3]!.request.addr)]).toEqual(["GET", true]);
    const metrics = await (await served.ask("GET", "/metrics")).text();
    expect(metrics).toContain('jubako_registry_notifications_delivered{endpoint="hook"} 7');
    expect(metrics).toContain('jubako_registry_http_requests_total{route="manifest",method="GET",code="200"} 1');
  } finally {
    hook.closeAllConnections();
    hook.close();
  }
});

test("an address of its own for metrics and health", async () => {
  await using served = await serveRegistry({ debugAddress: "127.0.0.1:0" });
  const debug = `http://${served.registry.debugAddress}`;
  expect([
    (await fetch(`${debug}/metrics`)).status,
    (await fetch(`${debug}/debug/health`)).status,
    (await fetch(`${debug}/v2/`)).status,
  ]).toEqual([200, 200, 404]);
  expect((await served.ask("GET", "/metrics")).status).toBe(404);
});

test("the configuration: what is there is read, what is not understood is told", () => {
  const { config, unknown } = parseConfig(`
version: 0.1
log: { level: debug, accesslog: { disabled: true } }
storage:
  filesystem: { rootdirectory: /srv/r }
  cache: { blobdescriptor: inmemory }
  maintenance: { readonly: { enabled: true }, uploadpurging: { enabled: true, age: 24h } }
http:
  addr: :5001
  headers: { X-Content-Type-Options: [nosniff] }
  debug: { addr: "localhost:5002" }
auth: { htpasswd: { realm: here, path: /etc/users } }
proxy: { remoteurl: https://registry-1.docker.io, username: u, password: p, ttl: 48h }
notifications:
  endpoints:
    - { name: n, url: "http://x/", timeout: 500ms, threshold: 3, backoff: 1s, headers: { Authorization: [Basic x] }, ignore: { actions: [pull] } }
limits: { blob: 10GB }
garbagecollection: { interval: 24h, grace: 2h, deleteuntagged: true }
redis: { addr: x }
`);
  expect(config).toMatchObject({
    root: "/srv/r",
    address: ":5001",
    debugAddress: "localhost:5002",
    readOnly: true,
    mayDelete: false,
    uploadAgeMs: 86_400_000,
    htpasswd: { realm: "here", path: "/etc/users" },
    proxy: { remote: "https://registry-1.docker.io", username: "u", password: "p", ttlMs: 172_800_000 },
    collectEveryMs: 86_400_000,
    graceMs: 7_200_000,
    deleteUntagged: true,
    logLevel: "debug",
    accessLog: false,
  });
  expect(config.limits.blob).toBe(10e9);
  expect(config.endpoints[0]).toMatchObject({
    timeoutMs: 500,
    threshold: 3,
    backoffMs: 1000,
    headers: { Authorization: ["Basic x"] },
    ignoredActions: ["pull"],
  });
  expect(unknown).toEqual(["redis"]);
  for (const [text, message] of [
    ["version: 0.2", "must be 0.1"],
    ["version: 0.1\nstorage: { s3: {} }", "storage driver s3"],
    ["version: 0.1\nstorage: { filesystem: { rootdirectory: /x } }\nhttp: { h2c: { enabled: true } }", "HTTP/2 without TLS"],
    [
      "version: 0.1\nstorage: { filesystem: { rootdirectory: /x } }\nauth: { token: { realm: r, service: s, issuer: i } }",
      "rootcertbundle or jwks",
    ],
    ["version: 0.1\nstorage: { filesystem: 5 }", "storage.filesystem is not a mapping"],
    ["{", "not YAML"],
  ] as const)
    expect(() => parseConfig(text)).toThrow(message);
  expect([parseDuration("1h30m", "x"), parseSize("1KiB", "x"), defaults().mayDelete]).toEqual([5_400_000, 1024, true]);
  expect(() => parseDuration("5 parsecs", "x")).toThrow("is not a duration");
});

test("a kill in the middle of a push leaves a directory that serves, and nothing half done under a digest", async () => {
  const root = join(dir, "killed");
  const { programCommand } = await import("../lib/program.ts");
  const [program, ...rest] = programCommand("jubako-registry");
  const child = spawn(program!, [...rest, "serve", "--root", root, "--addr", "127.0.0.1:0"], { stdio: ["ignore", "ignore", "pipe"] });
  const address = await new Promise<string>((resolve) => {
    let text = "";
    child.stderr!.on("data", (piece) => {
      text += piece;
      const found = /address="([^"]+)"/.exec(text);
      if (found) resolve(found[1]!);
    });
  });
  const bytes = Buffer.alloc(64 << 20, "x");
  const location = (await fetch(`http://${address}/v2/killed/app/blobs/uploads/`, { method: "POST" })).headers.get("location");
  const sending = fetch(`http://${address}${location}?digest=${digestOf(bytes)}`, { method: "PUT", body: bytes }).catch(() => undefined);
  await Bun.sleep(15);
  const exited = new Promise((resolve) => child.once("exit", resolve));
  child.kill("SIGKILL");
  // In the middle of a sync it holds its lock a moment longer.
  await Promise.all([sending, exited]);
  await using served = await serveRegistry({ root });
  const head = await served.ask("HEAD", `/v2/killed/app/blobs/${digestOf(bytes)}`);
  if (head.status === 404) {
    const status = await served.ask("GET", location!);
    // Killed between the blob's rename and its link, there is no upload any more, and the client begins anew.
    if (status.status === 404) await pushBlob(served, "killed/app", bytes);
    else {
      const offset = Number(status.headers.get("range")!.split("-")[1]);
      const at = offset === 0 ? 0 : offset + 1;
      const put = await served.ask("PUT", `${location}?digest=${digestOf(bytes)}`, bytes.subarray(at));
      expect([status.status, put.status]).toEqual([204, 201]);
    }
  }
  await pushBlob(served, "killed/app", "after");
  expect((await served.ask("HEAD", `/v2/killed/app/blobs/${digestOf(bytes)}`)).headers.get("content-length")).toBe(String(bytes.length));
});
