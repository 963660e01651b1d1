// Contexts as the docker CLI stores them: ~/.docker/contexts/meta/ID/meta.json and, for TLS, ~/.docker/contexts/tls/ID/docker/*.pem.
import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { notFound } from "../lib/errors.ts";
import { defaultHost, type TlsMaterial } from "./endpoint.ts";

/** A context as `context inspect` shows it. */
export interface StoredContext {
  name: string;
  description: string;
  metadata: Record<string, unknown>;
  host: string;
  skipTlsVerify: boolean;
  tls: TlsMaterial | undefined;
  tlsFiles: string[];
  metaPath: string;
  tlsPath: string;
}

/** The name of a context's directory. */
export function contextId(name: string): string {
  return createHash("sha256").update(name).digest("hex");
}

/** ~/.docker/contexts/meta/<sha256 of the name>/meta.json. NotFound where there is none. */
export function readContext(configDir: string, name: string): StoredContext {
  const id = contextId(name);
  const metaPath = `${configDir}/contexts/meta/${id}`;
  const tlsPath = `${configDir}/contexts/tls/${id}`;
  let text: string;
  try {
    text = readFileSync(`${metaPath}/meta.json`, "utf8");
  } catch (error) {
    throw notFound(`context "${name}": context not found: open ${metaPath}/meta.json: no such file or directory`, error);
  }
  const meta = JSON.parse(text) as {
    Name?: string;
    Metadata?: Record<string, unknown>;
    Endpoints?: Record<string, { Host?: string; SkipTLSVerify?: boolean }>;
  };
  const docker = meta.Endpoints?.docker ?? {};
  const tlsFiles = ["ca.pem", "cert.pem", "key.pem"].filter((file) => existsSync(`${tlsPath}/docker/${file}`));
  const read = (file: string) => (tlsFiles.includes(file) ? readFileSync(`${tlsPath}/docker/${file}`, "utf8") : undefined);
  const verify = docker.SkipTLSVerify !== true;
  const tls =
    tlsFiles.length > 0 || docker.SkipTLSVerify
      ? { ca: verify ? read("ca.pem") : undefined, cert: read("cert.pem"), key: read("key.pem"), verify }
      : undefined;
  return {
    name: meta.Name ?? name,
    description: String(meta.Metadata?.Description ?? ""),
    metadata: meta.Metadata ?? {},
    host: docker.Host || defaultHost(),
    skipTlsVerify: !verify,
    tls,
    tlsFiles,
    metaPath,
    tlsPath,
  };
}

/** All stored contexts by name; a broken one is left out. */
export function listContexts(configDir: string): StoredContext[] {
  let ids: string[];
  try {
    ids = readdirSync(`${configDir}/contexts/meta`);
  } catch {
    return [];
  }
  const contexts: StoredContext[] = [];
  for (const id of ids) {
    try {
      const { Name } = JSON.parse(readFileSync(`${configDir}/contexts/meta/${id}/meta.json`, "utf8")) as { Name: string };
      contexts.push(readContext(configDir, Name));
    } catch {}
  }
  return contexts.sort((a, b) => (a.name < b.name ? -1 : 1));
}
