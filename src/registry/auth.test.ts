import { afterAll, beforeAll, expect, test } from "bun:test";
import { generateKeyPairSync, type KeyObject, sign } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { digestOf } from "../oci/index.ts";
import type { TokenConfig } from "./config.ts";
import { parseHtpasswd } from "./htpasswd.ts";
import { codes, pushBlob, type Served, serveRegistry } from "./testing.ts";
import { libtrustId } from "./token.ts";

const dir = mkdtempSync(join(tmpdir(), "jubako-registry-auth-"));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const basic = (user: string, password: string) => ({ authorization: `Basic ${Buffer.from(`${user}:${password}`).toString("base64")}` });

test("htpasswd: who is in the file may, others are challenged; the file is read again when it changes", async () => {
  const path = join(dir, "htpasswd");
  const hash = async (password: string) => (await Bun.password.hash(password, { algorithm: "bcrypt", cost: 4 })).replace(/^\$2b\$/, "$2y$");
  writeFileSync(path, `# users\nalice:${await hash("secret")}\nold:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=\n`);
  await using served = await serveRegistry({ htpasswd: { realm: "test realm", path } });
  for (const headers of [
    {},
    basic("alice", "wrong"),
    basic("alice", ""),
    basic("bob", "secret"),
    basic("old", "password"),
    { authorization: "Basic !" },
  ]) {
    const response = await served.ask("GET", "/v2/", undefined, headers);
    expect([response.status, response.headers.get("www-authenticate")]).toEqual([401, 'Basic realm="test realm"']);
    expect(await codes(response)).toEqual(["UNAUTHORIZED"]);
  }
  for (let i = 0; i < 3; i++) expect((await served.ask("GET", "/v2/", undefined, basic("alice", "secret"))).status).toBe(200);
  expect((await served.ask("POST", "/v2/a/blobs/uploads/", undefined, basic("alice", "secret"))).status).toBe(202);
  expect((await served.ask("GET", "/metrics")).status).toBe(401);
  expect((await served.ask("GET", "/debug/health")).status).toBe(200);
  writeFileSync(path, `bob:${await hash("other secret")}\n`);
  expect((await served.ask("GET", "/v2/", undefined, basic("alice", "secret"))).status).toBe(401);
  expect((await served.ask("GET", "/v2/", undefined, basic("bob", "other secret"))).status).toBe(200);
});

test("htpasswd: only bcrypt counts", () => {
  const { users, refused } = parseHtpasswd(`a:$2y$05$${"x".repeat(53)}\nb:$apr1$x$y\nc\n:x\n`);
  expect([[...users.keys()], refused.length]).toEqual([["a"], 3]);
});

const b64 = (value: object) => Buffer.from(JSON.stringify(value)).toString("base64url");

function token(key: KeyObject, header: Record<string, unknown>, claims: object): string {
  const data = `${b64({ typ: "JWT", ...header })}.${b64(claims)}`;
  const hash = header.alg === "EdDSA" ? null : "sha256";
  return `${data}.${sign(hash, Buffer.from(data), { key, dsaEncoding: "ieee-p1363" }).toString("base64url")}`;
}

const rsa = generateKeyPairSync("rsa", { modulusLength: 2048 });
const ec = generateKeyPairSync("ec", { namedCurve: "P-256" });
const stranger = generateKeyPairSync("ec", { namedCurve: "P-256" });
const now = Math.floor(Date.now() / 1000);
const claims = (actions: string[], more: object = {}) => ({
  iss: "issuer",
  aud: "registry",
  sub: "alice",
  exp: now + 300,
  nbf: now - 10,
  access: [{ type: "repository", name: "a/b", actions }],
  ...more,
});
let served: Served;
beforeAll(async () => {
  const bundle = join(dir, "keys.pem");
  writeFileSync(bundle, [rsa, ec].map((pair) => pair.publicKey.export({ type: "spki", format: "pem" })).join(""));
  const config: TokenConfig = {
    realm: "https://auth.example/token",
    service: "registry",
    issuer: "issuer",
    rootCertBundle: bundle,
    autoRedirect: false,
  };
  served = await serveRegistry({ token: config });
});
afterAll(() => served[Symbol.asyncDispose]());
const bearer = (text: string) => ({ authorization: `Bearer ${text}` });

test("token: the challenge names realm, service and scope", async () => {
  for (const [method, path, scope] of [
    ["GET", "/v2/", undefined],
    ["GET", "/v2/a/b/tags/list", "repository:a/b:pull"],
    ["POST", "/v2/a/b/blobs/uploads/", "repository:a/b:pull,push"],
    ["POST", `/v2/a/b/blobs/uploads/?mount=${digestOf("")}&from=c/d`, "repository:a/b:pull,push repository:c/d:pull"],
    ["DELETE", `/v2/a/b/manifests/${digestOf("")}`, "repository:a/b:delete"],
    ["GET", "/v2/_catalog", "registry:catalog:*"],
  ] as [string, string, string | undefined][]) {
    const response = await served.ask(method, path);
    const expected = `Bearer realm="https://auth.example/token",service="registry"${scope ? `,scope="${scope}"` : ""}`;
    expect([path, response.status, response.headers.get("www-authenticate")]).toEqual([path, 401, expected]);
    await response.text();
  }
});

test("token: RS256 and ES256 by configured keys, with and without a key id", async () => {
  for (const [pair, alg] of [
    [rsa, "RS256"],
    [ec, "ES256"],
  ] as const) {
    for (const kid of [{}, { kid: libtrustId(pair.publicKey) }, { kid: "another" }]) {
      const good = bearer(token(pair.privateKey, { alg, ...kid }, claims(["pull", "push"])));
      expect((await served.ask("POST", "/v2/a/b/blobs/uploads/", undefined, good)).status).toBe(202);
      expect((await served.ask("GET", "/v2/", undefined, good)).status).toBe(200);
    }
  }
});

test("token: what is forged, expired, for others or not enough is refused", async () => {
  const { privateKey } = ec;
  const good = token(privateKey, { alg: "ES256" }, claims(["pull"]));
  const [head, body, tail] = good.split(".") as [string, string, string];
  const pem = rsa.publicKey.export({ type: "spki", format: "pem" });
  const { createHmac } = await import("node:crypto");
  const confused = `${b64({ alg: "HS256" })}.${b64(claims(["pull", "push"]))}`;
  const forged = [
    token(stranger.privateKey, { alg: "ES256" }, claims(["pull", "push"])),
    token(stranger.privateKey, { alg: "ES256", jwk: stranger.publicKey.export({ format: "jwk" }) }, claims(["pull", "push"])),
    token(privateKey, { alg: "ES256" }, claims(["pull", "push"], { exp: now - 120 })),
    token(privateKey, { alg: "ES256" }, claims(["pull", "push"], { exp: undefined })),
    token(privateKey, { alg: "ES256" }, claims(["pull", "push"], { nbf: now + 600 })),
    token(privateKey, { alg: "ES256" }, claims(["pull", "push"], { iss: "other" })),
    token(privateKey, { alg: "ES256" }, claims(["pull", "push"], { aud: ["other"] })),
    token(privateKey, { alg: "ES384" }, claims(["pull", "push"])),
    `${b64({ alg: "none" })}.${b64(claims(["pull", "push"]))}.`,
    `${confused}.${createHmac("sha256", pem).update(confused).digest("base64url")}`,
    `${head}.${b64(claims(["pull", "push"]))}.${tail}`,
    `${head}.${body}`,
    "x.y.z",
  ];
  for (const one of forged) {
    const response = await served.ask("POST", "/v2/a/b/blobs/uploads/", undefined, bearer(one));
    expect([response.status, response.headers.get("www-authenticate")?.includes('error="invalid_token"')]).toEqual([401, true]);
    await response.text();
  }
  const pull = await served.ask("POST", "/v2/a/b/blobs/uploads/", undefined, bearer(good));
  expect([pull.status, pull.headers.get("www-authenticate")?.includes('error="insufficient_scope"')]).toEqual([401, true]);
  expect((await served.ask("GET", "/v2/other/tags/list", undefined, bearer(good))).status).toBe(401);
  expect((await served.ask("GET", "/v2/_catalog", undefined, bearer(good))).status).toBe(401);
});

test("token: a blob is mounted only from where the bearer may pull", async () => {
  const push = (name: string) => ({ type: "repository", name, actions: ["pull", "push"] });
  const as = (...names: string[]) => bearer(token(ec.privateKey, { alg: "ES256" }, claims([], { access: names.map(push) })));
  const source = {
    ...served,
    ask: (m: string, p: string, b?: Uint8Array | string, h = {}) => served.ask(m, p, b, { ...h, ...as("secret/x") }),
  };
  const digest = await pushBlob(source, "secret/x", "private");
  const path = `/v2/a/b/blobs/uploads/?mount=${digest}&from=secret/x`;
  expect((await served.ask("POST", path, undefined, as("a/b"))).status).toBe(202);
  expect((await served.ask("HEAD", `/v2/a/b/blobs/${digest}`, undefined, as("a/b"))).status).toBe(404);
  expect((await served.ask("POST", path, undefined, as("a/b", "secret/x"))).status).toBe(201);
});
