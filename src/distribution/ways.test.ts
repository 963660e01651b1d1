// How a registry is reached and who we say we are: proxies, private authorities and client certificates, refresh tokens, mounts across repositories, uploads
// that break, registries that ask for patience, mirrors that lack something.
import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test";
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { createServer as createTlsServer } from "node:https";
import { type AddressInfo, connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { digestOf, MEDIA, parseTagged } from "../oci/index.ts";
import { parseRetryAfter } from "./errors.ts";
import { checkLogin, openRepository, type RegistryConfig, searchIndex } from "./index.ts";
import { proxiesOf, proxyFor } from "./proxy.ts";

const servers: Server[] = [];
afterEach(() => {
  for (const server of servers.splice(0)) {
    server.closeAllConnections();
    server.close();
  }
});

type Handler = (request: IncomingMessage, response: ServerResponse, body: Buffer) => void;

async function listening(server: Server): Promise<number> {
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return (server.address() as AddressInfo).port;
}

/** A server on loopback; what it was asked, as "METHOD path". */
async function serve(handle: Handler): Promise<{ host: string; seen: string[]; headers: IncomingMessage["headers"][] }> {
  const seen: string[] = [];
  const headers: IncomingMessage["headers"][] = [];
  const server = createServer(async (request, response) => {
    seen.push(`${request.method} ${request.url}`);
    headers.push(request.headers);
    const parts: Buffer[] = [];
    try {
      for await (const part of request) parts.push(part as Buffer);
      handle(request, response, Buffer.concat(parts));
    } catch {
      // the client went away
    }
  });
  return { host: `127.0.0.1:${await listening(server)}`, seen, headers };
}

const config: RegistryConfig = { insecure: [], mirrors: [], timeoutMs: 500 };
const BLOB = Buffer.from("0123456789".repeat(20_000));
const LAYER = { mediaType: MEDIA.ociLayer, digest: digestOf(BLOB), size: BLOB.length };
const INDEX = Buffer.from('{"schemaVersion":2,"manifests":[]}');
const sendIndex = (response: ServerResponse) => response.setHeader("content-type", MEDIA.ociIndex).end(INDEX);
const failure = (promise: Promise<unknown>): Promise<string> =>
  promise.then(
    () => "no failure",
    (error: Error) => error.message,
  );
async function* source(): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < BLOB.length; at += 50_000) yield BLOB.subarray(at, at + 50_000);
}

test("proxies are chosen as Go's programs choose them", () => {
  const settings = {
    http: "http://p:1",
    https: "p:2",
    none: "exact.example, .below.example,10.0.0.0/8,192.168.1.1,with.port:5000,*.star.example",
  };
  const of = (url: string) => proxyFor(new URL(url), settings);
  expect(of("http://a.example/")).toBe("http://p:1");
  expect(of("https://a.example/")).toBe("http://p:2");
  for (const direct of [
    "http://localhost:5000",
    "http://127.1.2.3",
    "http://[::1]:80",
    "https://exact.example",
    "https://sub.exact.example",
    "http://x.below.example",
    "http://10.2.3.4:5000",
    "http://192.168.1.1",
    "http://with.port:5000",
    "http://a.star.example",
  ])
    expect([direct, of(direct)]).toEqual([direct, undefined]);
  for (const proxied of ["http://below.example", "http://notexact.example", "http://11.0.0.1", "http://with.port", "http://192.168.1.10"])
    expect([proxied, of(proxied)]).toEqual([proxied, "http://p:1"]);
  expect(proxyFor(new URL("http://a.example"), { http: "http://p", none: "*" })).toBeUndefined();
  expect(() => proxyFor(new URL("http://a.example"), { http: "ftp://p" })).toThrow("only http and https");
  expect(proxiesOf({ http_proxy: "a", HTTP_PROXY: "b", no_proxy: "c" })).toEqual({ http: "b", none: "c" });
});

test("requests go through the proxy, with its password, and not where NO_PROXY says so", async () => {
  const proxy = await serve((_, response) => sendIndex(response));
  const through = { ...config, insecure: ["registry.example:5000"], proxy: { http: `http://me:pw@${proxy.host}` } };
  const repository = openRepository(parseTagged("registry.example:5000/a/b"), through);
  expect((await repository.manifest("1")).bytes).toEqual(new Uint8Array(INDEX));
  expect(proxy.seen).toEqual(["GET http://registry.example:5000/v2/a/b/manifests/1"]);
  expect(proxy.headers[0]!["proxy-authorization"]).toBe(`Basic ${Buffer.from("me:pw").toString("base64")}`);
  const direct = { ...through, proxy: { ...through.proxy, none: "example" } };
  expect(await failure(openRepository(parseTagged("registry.example:5000/a/b"), direct).manifest("1"))).toContain("registry.example");
  expect(proxy.seen.length).toBe(1);
});

describe.skipIf(!Bun.which("openssl"))("TLS", () => {
  let dir: string;
  const openssl = (...args: string[]) => execFileSync("openssl", args, { cwd: dir, stdio: "pipe" });
  beforeAll(() => {
    dir = mkdtempSync(join(tmpdir(), "jubako-certs-"));
    const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    openssl("req", "-x509", ...key, "-keyout", "ca.key", "-out", "ca.crt", "-days", "2", "-subj", "/CN=jubako test CA");
    for (const [name, subject, extension] of [
      [
        "server",
        "/CN=server",
        "subjectAltName=IP:127.0.0.1,DNS:registry.example,DNS:registry-1.docker.io,DNS:auth.docker.io,DNS:index.docker.io",
      ],
      ["client", "/CN=client", "extendedKeyUsage=clientAuth"],
    ] as const) {
      openssl("req", ...key, "-keyout", `${name}.key`, "-out", `${name}.csr`, "-subj", subject);
      writeFileSync(join(dir, "ext"), extension);
      openssl(
        "x509",
        "-req",
        "-in",
        `${name}.csr`,
        "-CA",
        "ca.crt",
        "-CAkey",
        "ca.key",
        "-CAcreateserial",
        "-out",
        `${name}.crt`,
        "-days",
        "2",
        "-extfile",
        "ext",
      );
    }
  });
  afterAll(() => rmSync(dir, { recursive: true, force: true }));

  /** A proxy whose tunnels all lead to one port on loopback. */
  const tunnel = async (port: number, asked: string[] = []): Promise<string> => {
    const proxy = createServer();
    proxy.on("connect", (request, socket) => {
      asked.push(request.url!);
      const upstream = connect(port, "127.0.0.1", () => {
        socket.write("HTTP/1.1 200 OK\r\n\r\n");
        upstream.pipe(socket).pipe(upstream);
      });
      upstream.on("error", () => socket.destroy());
      socket.on("error", () => upstream.destroy());
    });
    return `http://127.0.0.1:${await listening(proxy)}`;
  };

  test("Docker Hub by its short names: its hosts, its token service, its library", async () => {
    const read = (name: string) => readFileSync(join(dir, name));
    const seen: string[] = [];
    const hub = createTlsServer({ key: read("server.key"), cert: read("server.crt") }, (request, response) => {
      const { host, authorization = "" } = request.headers;
      seen.push(`${host} ${request.url} ${authorization.split(" ")[0]}`.trim());
      if (host === "index.docker.io")
        response.end('{"results":[{"name":"busybox","description":"small","star_count":3,"is_official":true,"is_automated":false}]}');
      else if (host === "auth.docker.io") response.end('{"token":"HUB","expires_in":300}');
      else if (authorization !== "Bearer HUB")
        response.writeHead(401, { "www-authenticate": 'Bearer realm="https://auth.docker.io/token",service="registry.docker.io"' }).end();
      else sendIndex(response);
    });
    const hosts: string[] = [];
    const proxy = { https: await tunnel(await listening(hub as unknown as Server), hosts) };
    process.env.SSL_CERT_FILE = join(dir, "ca.crt");
    try {
      for (const name of ["busybox", "docker.io/busybox", "index.docker.io/library/busybox"]) {
        seen.length = 0;
        const reference = parseTagged(name);
        await openRepository(reference, { ...config, timeoutMs: 5000, proxy }, { username: "me", password: "pw" }).manifest(reference.tag!);
        expect(seen).toEqual([
          "registry-1.docker.io /v2/library/busybox/manifests/latest",
          "auth.docker.io /token?service=registry.docker.io&scope=repository%3Alibrary%2Fbusybox%3Apull&account=me Basic",
          "registry-1.docker.io /v2/library/busybox/manifests/latest Bearer",
        ]);
      }
      seen.length = 0;
      const { signal } = new AbortController();
      expect(await searchIndex("library/busy box", 25, { ...config, proxy }, undefined, signal)).toEqual([
        { name: "busybox", description: "small", star_count: 3, is_official: true, is_automated: false },
      ]);
      expect(seen).toEqual(["index.docker.io /v1/search?q=busy+box&n=25"]);
    } finally {
      delete process.env.SSL_CERT_FILE;
    }
    expect(new Set(hosts)).toEqual(new Set(["registry-1.docker.io:443", "auth.docker.io:443", "index.docker.io:443"]));
  });

  test("a private authority and a client certificate from certs.d; authorities of the machine", async () => {
    const read = (name: string) => readFileSync(join(dir, name));
    let asked = 0;
    const tls = createTlsServer(
      { key: read("server.key"), cert: read("server.crt"), ca: read("ca.crt"), requestCert: true, rejectUnauthorized: true },
      (_, response) => {
        asked++;
        sendIndex(response);
      },
    );
    const port = await listening(tls as unknown as Server);
    // A name, as addresses on this machine are allowed to be insecure: the proxy's tunnel leads it to loopback.
    const through = {
      ...config,
      timeoutMs: 5000,
      proxy: { https: await tunnel(port) },
      certificates: join(dir, "certs.d"),
    };
    const host = join(dir, "certs.d/registry.example:5000");
    const pull = () => openRepository(parseTagged("registry.example:5000/a"), through).manifest("1");
    expect(await failure(pull())).toContain("x509: certificate signed by unknown authority");
    mkdirSync(host, { recursive: true });
    writeFileSync(join(host, "ca.crt"), read("ca.crt"));
    expect(await failure(pull())).not.toBe("no failure");
    expect(asked).toBe(0);
    writeFileSync(join(host, "client.cert"), read("client.crt"));
    expect(await failure(pull())).toContain("missing key client.key for client certificate client.cert");
    writeFileSync(join(host, "client.key"), read("client.key"));
    expect((await pull()).descriptor.mediaType).toBe(MEDIA.ociIndex);
    expect(asked).toBe(1);
    // the machine's own store counts, too
    writeFileSync(join(dir, "system.crt"), read("ca.crt"));
    rmSync(join(host, "ca.crt"));
    process.env.SSL_CERT_FILE = join(dir, "system.crt");
    try {
      expect((await pull()).descriptor.mediaType).toBe(MEDIA.ociIndex);
    } finally {
      delete process.env.SSL_CERT_FILE;
    }
  });
});

test("login gets a refresh token where there is one, and that token serves for pulls", async () => {
  const token = await serve((request, response, body) => {
    const form = new URLSearchParams(body.toString());
    const url = new URL(request.url!, "http://x");
    if (request.method === "POST" && form.get("grant_type") === "refresh_token" && form.get("refresh_token") === "R1") {
      response.end(JSON.stringify({ access_token: "A1", scope: form.get("scope") }));
    } else if (
      request.headers.authorization === `Basic ${Buffer.from("me:pw").toString("base64")}` &&
      url.searchParams.get("offline_token") === "true"
    ) {
      response.end(JSON.stringify({ token: "A1", refresh_token: "R1" }));
    } else response.writeHead(401).end("{}");
  });
  const { host } = await serve((request, response) => {
    if (request.headers.authorization === "Bearer A1") sendIndex(response);
    else response.writeHead(401, { "www-authenticate": `Bearer realm="http://${token.host}/token",service="reg"` }).end();
  });
  expect(await checkLogin(host, config, { username: "me", password: "pw" })).toBe("R1");
  expect(await failure(checkLogin(host, config, { username: "me", password: "wrong" }))).toMatch(/unauthorized/i);
  const repository = openRepository(parseTagged(`${host}/a/b`), config, { identityToken: "R1" });
  expect((await repository.manifest("1")).descriptor.mediaType).toBe(MEDIA.ociIndex);
  expect(await failure(openRepository(parseTagged(`${host}/a/b`), config, { identityToken: "R2" }).manifest("1"))).toMatch(/unauthorized/i);
});

test("a registry that asks for patience gets it, within reason", async () => {
  let refused = 0;
  const { host } = await serve((_, response) => {
    if (refused++ < 2) response.writeHead(429, { "retry-after": "1" }).end('{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}');
    else sendIndex(response);
  });
  const began = Date.now();
  await openRepository(parseTagged(`${host}/a`), config).manifest("1");
  expect(Date.now() - began).toBeGreaterThan(1900);
  const hours = await serve((_, response) => response.writeHead(429, { "retry-after": "21600" }).end("{}"));
  expect(await failure(openRepository(parseTagged(`${hours.host}/a`), config).manifest("1"))).toContain("toomanyrequests");
  expect(hours.seen.length).toBe(1);
  expect(parseRetryAfter("7")).toBe(7000);
  expect(parseRetryAfter("Sat, 21 Nov 2026 10:00:10 GMT", Date.parse("2026-11-21T10:00:00Z"))).toBe(10_000);
  expect(parseRetryAfter("soon")).toBeUndefined();
}, 15_000);

test("the number of attempts is the configuration's", async () => {
  const { host, seen } = await serve((_, response) => response.writeHead(503, { "retry-after": "0" }).end());
  expect(await failure(openRepository(parseTagged(`${host}/a`), { ...config, attempts: 3 }).manifest("1"))).toContain("503");
  expect(seen.length).toBe(3);
});

test("a blob is mounted with a token for both repositories, and uploaded where that is refused", async () => {
  const scopes: string[][] = [];
  const token = await serve((request, response) => {
    const url = new URL(request.url!, "http://x");
    scopes.push(url.searchParams.getAll("scope"));
    response.end('{"token":"T"}');
  });
  for (const refuse of [false, true]) {
    const { host, seen } = await serve((request, response) => {
      const url = new URL(request.url!, "http://x");
      if (request.headers.authorization !== "Bearer T")
        response.writeHead(401, { "www-authenticate": `Bearer realm="http://${token.host}/t",service="r"` }).end();
      else if (request.method === "HEAD") response.writeHead(404).end();
      else if (url.searchParams.has("mount")) response.writeHead(refuse ? 403 : 201).end();
      else if (request.method === "POST") response.writeHead(202, { location: "/v2/a/b/blobs/uploads/1?state=x" }).end();
      else response.writeHead(201).end();
    });
    const repository = openRepository(parseTagged(`${host}/a/b`), config, undefined, "push");
    expect(await repository.push(LAYER, source, { from: "other/one" })).toBe(refuse ? "pushed" : "mounted");
    expect(seen.some((line) => line.includes(`mount=${encodeURIComponent(LAYER.digest)}&from=other%2Fone`))).toBe(true);
    if (refuse) expect(seen.at(-1)).toBe(`PUT /v2/a/b/blobs/uploads/1?state=x&digest=${encodeURIComponent(LAYER.digest)}`);
  }
  expect(scopes).toContainEqual(["repository:a/b:pull,push", "repository:other/one:pull"]);
});

test("an upload that breaks is made again; a registry that takes nothing more is given up", async () => {
  let broken = 0;
  const got: number[] = [];
  const server = createServer((request, response) => {
    if (request.method === "HEAD") response.writeHead(404).end();
    else if (request.method === "POST") response.writeHead(202, { location: "/v2/a/b/blobs/uploads/1" }).end();
    else if (broken++ < 1) request.socket.destroy();
    else {
      let length = 0;
      request.on("data", (piece: Buffer) => {
        length += piece.length;
      });
      request.on("end", () => {
        got.push(length);
        response.writeHead(201).end();
      });
    }
  });
  const host = `127.0.0.1:${await listening(server)}`;
  expect(await openRepository(parseTagged(`${host}/a/b`), config, undefined, "push").push(LAYER, source)).toBe("pushed");
  expect([broken, got]).toEqual([2, [BLOB.length]]);

  const stalls = createServer((request, response) => {
    if (request.method === "HEAD") response.writeHead(404).end();
    else if (request.method === "POST") response.writeHead(202, { location: "/v2/a/b/blobs/uploads/1" }).end();
    else request.pause();
  });
  const stalling = `127.0.0.1:${await listening(stalls)}`;
  async function* endless(): AsyncGenerator<Uint8Array> {
    for (;;) yield Buffer.alloc(1 << 20);
  }
  const huge = { ...LAYER, size: 2 ** 40 };
  const began = Date.now();
  const repository = openRepository(parseTagged(`${stalling}/a/b`), { ...config, attempts: 1 }, undefined, "push");
  expect(await failure(repository.push(huge, endless))).toContain("no progress");
  expect(Date.now() - began).toBeLessThan(5000);
}, 15_000);

test("what a mirror lacks is asked of the next", async () => {
  const first = await serve((request, response) => {
    if (request.url!.includes("/manifests/")) sendIndex(response);
    else response.writeHead(404).end();
  });
  const second = await serve((_, response) => response.end(BLOB));
  const mirrors = [`http://${first.host}`, `http://${second.host}`];
  const repository = openRepository(parseTagged("busybox"), { ...config, mirrors });
  await repository.manifest("latest");
  expect(Buffer.from(await repository.blob(LAYER, 1 << 20)).equals(BLOB)).toBe(true);
  expect(second.seen).toEqual([`GET /v2/library/busybox/blobs/${LAYER.digest}`]);
});
