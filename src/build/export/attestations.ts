// Attestations as in-toto statements, and the manifest that carries them beside an image (BuildKit docs, "Image attestation storage").
import { invalidArgument } from "../../lib/errors.ts";
import { type Descriptor, formatPlatform, MEDIA, type Platform, parseReference, withDefaultTag } from "../../oci/index.ts";
import { childLabels, writeBytes } from "../content.ts";
import type { BuilderHost, Lease } from "../host.ts";
import type { Attestation } from "../session.ts";

const STATEMENT = "https://in-toto.io/Statement/v0.1";
const IN_TOTO = "application/vnd.in-toto+json";
const MAX_STATEMENT = 64 << 20;
const MAX_STATEMENTS = 1000;

export interface Statement {
  predicateType: string;
  predicate: unknown;
  subjects: { kind: "self" | "raw"; name: string; digest: string[] }[];
  /** "provenance", "sbom", … */
  reason: string;
  /** Where a file export puts it. */
  path: string;
}

/** The package URL of an image. */
export function imagePurl(ref: string, platform: Platform | undefined): string {
  const reference = withDefaultTag(parseReference(ref));
  const parts = [...(reference.domain === "docker.io" ? [] : [reference.domain]), ...reference.path.replace(/^library\//, "").split("/")];
  const name = parts.map((part) => encodeURIComponent(part).replace(/%3A/gi, ":")).join("/");
  const qualifiers = [
    ...(reference.digest ? [`digest=${encodeURIComponent(reference.digest).replace(/%3A/gi, ":")}`] : []),
    ...(platform ? [`platform=${encodeURIComponent(formatPlatform(platform))}`] : []),
  ];
  return `pkg:docker/${name}${reference.tag ? `@${encodeURIComponent(reference.tag)}` : ""}${qualifiers.length > 0 ? `?${qualifiers.join("&")}` : ""}`;
}

function parse(bytes: Uint8Array, what: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(Buffer.from(bytes).toString("utf8"));
    if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  } catch {
    // the same answer as for what is no object
  }
  throw invalidArgument(`the attestation ${what} is no JSON object`);
}

/** What a frontend's or a scanner's attestations say. Those that are a bundle are a directory of statements. */
export async function statementsOf(attestations: readonly Attestation[]): Promise<Statement[]> {
  const found: Statement[] = [];
  for (const { kind, ref, path, content, metadata, predicateType, subjects } of attestations) {
    const reason = Buffer.from(metadata.get("result-reason") ?? new Uint8Array()).toString("utf8");
    if (kind === "in-toto") {
      const bytes = content ?? (await ref?.readFile(path));
      if (!bytes) throw invalidArgument("an attestation without content");
      found.push({ predicateType, predicate: parse(bytes, path), subjects, reason, path: path.split("/").at(-1) || "attestation.json" });
      continue;
    }
    for (const file of (await ref?.readDir(path || "/")) ?? []) {
      if ((file.mode & 0o170000) !== 0o100000 || found.length >= MAX_STATEMENTS || file.size > MAX_STATEMENT) continue;
      const statement = parse(await ref!.readFile(`${path.replace(/\/$/, "")}/${file.path}`), file.path);
      const type = statement.predicateType;
      if (typeof type !== "string") throw invalidArgument(`the attestation ${file.path} has no predicateType`);
      found.push({ predicateType: type, predicate: statement.predicate, subjects: [], reason, path: file.path });
    }
  }
  return found;
}

/** A statement about an image (by its names), or about files. */
export function statementJson(
  { predicateType, predicate, subjects }: Statement,
  about: { name: string; digest: string }[],
): Record<string, unknown> {
  const digestSet = (digests: string[]) => Object.fromEntries(digests.map((digest) => digest.split(":") as [string, string]));
  const self = about.map(({ name, digest }) => ({ name, digest: digestSet([digest]) }));
  const listed = subjects.flatMap(({ kind, name, digest }) => (kind === "self" ? self : [{ name, digest: digestSet(digest) }]));
  return { _type: STATEMENT, predicateType, subject: listed.length > 0 ? listed : self, predicate };
}

/** Writes the manifest of the attestations of one image manifest; answers its descriptor for the index. */
export async function attestationManifest(
  host: BuilderHost,
  lease: Lease,
  image: { manifest: Descriptor; names: string[]; platform: Platform | undefined },
  statements: readonly Statement[],
): Promise<Descriptor> {
  const { manager } = host;
  const { digest } = image.manifest;
  const names = image.names.length > 0 ? image.names.map((name) => imagePurl(name, image.platform)) : ["_"];
  const layers: Descriptor[] = [];
  for (const statement of statements) {
    const bytes = Buffer.from(
      JSON.stringify(
        statementJson(
          statement,
          names.map((name) => ({ name, digest })),
        ),
        undefined,
        2,
      ),
    );
    const written = await writeBytes(manager, bytes, { mediaType: IN_TOTO, labels: {}, lease });
    layers.push({ ...written, annotations: { "in-toto.io/predicate-type": statement.predicateType } });
  }
  const config = Buffer.from(
    JSON.stringify({
      architecture: "unknown",
      os: "unknown",
      config: {},
      rootfs: { type: "layers", diff_ids: layers.map((layer) => layer.digest) },
    }),
  );
  const configured = await writeBytes(manager, config, { mediaType: MEDIA.ociConfig, labels: {}, lease });
  const document = { schemaVersion: 2, mediaType: MEDIA.ociManifest, config: configured, layers };
  const labels = childLabels("manifest", [configured, ...layers]);
  const written = await writeBytes(manager, Buffer.from(JSON.stringify(document)), { mediaType: MEDIA.ociManifest, labels, lease });
  return {
    ...written,
    platform: { architecture: "unknown", os: "unknown" },
    annotations: { "vnd.docker.reference.digest": digest, "vnd.docker.reference.type": "attestation-manifest" },
  };
}
