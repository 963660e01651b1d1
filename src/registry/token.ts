// Bearer tokens (the distribution project's token specification): a service elsewhere says, in a signed JWT, what its bearer may do; here the signature,
// the issuer, the audience and the times are checked. Which algorithm is used follows from the key, never from the token alone (RFC 8725, 3.1).
import { createHash, createPublicKey, type KeyObject, verify, X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import type { IncomingMessage } from "node:http";
import { invalidArgument, messageOf } from "../lib/errors.ts";
import type { Access, Authenticator } from "./access.ts";
import { createCache } from "./cache.ts";
import type { TokenConfig } from "./config.ts";
import { refuse } from "./errors.ts";

export interface Keys {
  keys: { key: KeyObject; ids: Set<string> }[];
  roots: X509Certificate[];
}

interface Verified {
  subject: string;
  access: Access[];
  expires: number;
}

const MAX_TOKEN = 64 << 10;
const MAX_CHAIN = 8;
const LEEWAY_S = 60;

/** Algorithms of RFC 7518 and RFC 8037: what the key must be, and how it signs. */
const ALGORITHMS: Record<string, { type: string; hash: string | null; curve?: string; pss?: boolean }> = {
  RS256: { type: "rsa", hash: "sha256" },
  RS384: { type: "rsa", hash: "sha384" },
  RS512: { type: "rsa", hash: "sha512" },
  PS256: { type: "rsa", hash: "sha256", pss: true },
  PS384: { type: "rsa", hash: "sha384", pss: true },
  PS512: { type: "rsa", hash: "sha512", pss: true },
  ES256: { type: "ec", hash: "sha256", curve: "prime256v1" },
  ES384: { type: "ec", hash: "sha384", curve: "secp384r1" },
  ES512: { type: "ec", hash: "sha512", curve: "secp521r1" },
  EdDSA: { type: "ed25519", hash: null },
};

const BASE32 = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/** The key id that Docker's token servers use: the first 240 bits of the SHA-256 of the public key, in base 32, in groups of four. */
export function libtrustId(key: KeyObject): string {
  const hash = createHash("sha256")
    .update(key.export({ type: "spki", format: "der" }))
    .digest()
    .subarray(0, 30);
  let bits = "";
  for (const byte of hash) bits += byte.toString(2).padStart(8, "0");
  const letters = (bits.match(/.{5}/g) ?? []).map((five) => BASE32[Number.parseInt(five, 2)]).join("");
  return (letters.match(/.{4}/g) ?? []).join(":");
}

export function readKeys(config: TokenConfig): Keys {
  const keys: Keys["keys"] = [];
  const roots: X509Certificate[] = [];
  const add = (key: KeyObject, ids: string[]) => keys.push({ key, ids: new Set([libtrustId(key), ...ids]) });
  if (config.rootCertBundle) {
    const text = readFileSync(config.rootCertBundle, "utf8");
    for (const [block, kind] of text.matchAll(/-----BEGIN ([A-Z0-9 ]+)-----[\s\S]*?-----END \1-----/g)) {
      if (kind === "CERTIFICATE") {
        const certificate = new X509Certificate(block);
        roots.push(certificate);
        add(certificate.publicKey, []);
      } else if (kind?.endsWith("PUBLIC KEY")) add(createPublicKey(block), []);
    }
    if (keys.length === 0) throw invalidArgument(`${config.rootCertBundle} holds neither certificates nor public keys`);
  }
  if (config.jwks) {
    const set = JSON.parse(readFileSync(config.jwks, "utf8")) as { keys?: Record<string, unknown>[] };
    for (const jwk of set.keys ?? []) {
      try {
        add(createPublicKey({ key: jwk as import("node:crypto").JsonWebKey, format: "jwk" }), typeof jwk.kid === "string" ? [jwk.kid] : []);
      } catch (error) {
        throw invalidArgument(`${config.jwks}: ${messageOf(error)}`);
      }
    }
  }
  return { keys, roots };
}

/** The key of a certificate chain (x5c, leaf first) that leads to a root. */
function chainKey(chain: unknown, roots: X509Certificate[], now: number): KeyObject | undefined {
  if (!Array.isArray(chain) || chain.length === 0 || chain.length > MAX_CHAIN) return undefined;
  const certificates = chain.map((one) => new X509Certificate(Buffer.from(String(one), "base64")));
  const current = (certificate: X509Certificate) => Date.parse(certificate.validFrom) <= now && now <= Date.parse(certificate.validTo);
  for (const [i, certificate] of certificates.entries()) {
    if (!current(certificate)) return undefined;
    const root = roots.find(
      (one) =>
        current(one) &&
        (one.fingerprint256 === certificate.fingerprint256 || (certificate.checkIssued(one) && certificate.verify(one.publicKey))),
    );
    if (root) return certificates[0]!.publicKey;
    const next = certificates[i + 1];
    if (!next?.ca || !certificate.checkIssued(next) || !certificate.verify(next.publicKey)) return undefined;
  }
  return undefined;
}

function signed(algorithm: string, key: KeyObject, data: Buffer, signature: Buffer): boolean {
  const rule = ALGORITHMS[algorithm];
  if (!rule || key.asymmetricKeyType !== rule.type) return false;
  if (rule.curve && key.asymmetricKeyDetails?.namedCurve !== rule.curve) return false;
  try {
    return verify(
      rule.hash,
      data,
      { key, ...(rule.type === "ec" ? { dsaEncoding: "ieee-p1363" as const } : {}), ...(rule.pss ? { padding: 6, saltLength: -1 } : {}) },
      signature,
    );
  } catch {
    return false;
  }
}

function object(part: string): Record<string, unknown> {
  const value: unknown = JSON.parse(Buffer.from(part, "base64url").toString("utf8"));
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw new Error("not an object");
  return value as Record<string, unknown>;
}

/** What a token allows; undefined where it is not to be believed. `now` in milliseconds. */
export function verifyToken(text: string, config: Pick<TokenConfig, "issuer" | "service">, keys: Keys, now: number): Verified | undefined {
  const parts = text.split(".");
  if (parts.length !== 3 || text.length > MAX_TOKEN) return undefined;
  try {
    const header = object(parts[0]!);
    const { alg, kid } = header;
    if (typeof alg !== "string" || header.crit !== undefined) return undefined;
    const data = Buffer.from(`${parts[0]}.${parts[1]}`);
    const signature = Buffer.from(parts[2]!, "base64url");
    let candidates: KeyObject[];
    if (header.x5c !== undefined) {
      const key = chainKey(header.x5c, keys.roots, now);
      candidates = key ? [key] : [];
    } else {
      const named = typeof kid === "string" ? keys.keys.filter(({ ids }) => ids.has(kid)) : [];
      candidates = (named.length ? named : keys.keys).map(({ key }) => key);
    }
    if (!candidates.some((key) => signed(alg, key, data, signature))) return undefined;
    const claims = object(parts[1]!);
    const seconds = now / 1000;
    if (claims.iss !== config.issuer) return undefined;
    if (![claims.aud].flat().includes(config.service)) return undefined;
    if (typeof claims.exp !== "number" || seconds > claims.exp + LEEWAY_S) return undefined;
    if (claims.nbf !== undefined && !(typeof claims.nbf === "number" && seconds >= claims.nbf - LEEWAY_S)) return undefined;
    const access: Access[] = [];
    for (const one of Array.isArray(claims.access) ? (claims.access as Record<string, unknown>[]) : []) {
      const { type, name, actions } = one ?? {};
      if ((type === "repository" || type === "registry") && typeof name === "string" && Array.isArray(actions))
        access.push({ type, name, actions: actions.filter((action): action is string => typeof action === "string") });
    }
    return { subject: typeof claims.sub === "string" ? claims.sub : "", access, expires: (claims.exp + LEEWAY_S) * 1000 };
  } catch {
    return undefined;
  }
}

export function createTokens(config: TokenConfig): Authenticator {
  const keys = readKeys(config);
  /** By the hash of the token: what was checked once is right until it expires. */
  const known = createCache<Verified>(2000);

  const realm = (request: IncomingMessage): string => {
    if (!config.autoRedirect) return config.realm;
    const scheme = (request.socket as { encrypted?: boolean }).encrypted ? "https" : "http";
    return `${scheme}://${request.headers.host ?? ""}/auth/token`;
  };
  const challenge = (request: IncomingMessage, needed: Access[], error?: string) => {
    const scope = needed.map(({ type, name, actions }) => `${type}:${name}:${actions.join(",")}`).join(" ");
    const parts = [`realm=${JSON.stringify(realm(request))}`, `service=${JSON.stringify(config.service)}`];
    if (scope) parts.push(`scope="${scope}"`);
    if (error) parts.push(`error="${error}"`);
    return refuse("UNAUTHORIZED", {
      headers: { "www-authenticate": `Bearer ${parts.join(",")}` },
      detail: needed.map(({ type, name, actions }) => ({ Type: type, Name: name, Action: actions.join(",") })),
    });
  };

  return {
    check(request, needed, wanted = needed) {
      const match = /^bearer\s+([A-Za-z0-9._~+/=-]+)$/i.exec(request.headers.authorization ?? "");
      if (!match) throw challenge(request, wanted);
      const token = match[1]!;
      if (token.length > MAX_TOKEN) throw challenge(request, wanted, "invalid_token");
      const now = Date.now();
      const id = createHash("sha256").update(token).digest("base64");
      let verified = known.get(id);
      if (!verified || verified.expires < now) {
        verified = verifyToken(token, config, keys, now);
        if (!verified) throw challenge(request, wanted, "invalid_token");
        known.set(id, verified);
      }
      const { access, subject } = verified;
      for (const { type, name, actions } of needed) {
        const granted = access.filter((one) => one.type === type && one.name === name).flatMap((one) => one.actions);
        if (!actions.every((action) => granted.includes(action) || granted.includes("*")))
          throw challenge(request, wanted, "insufficient_scope");
      }
      return subject;
    },
  };
}
