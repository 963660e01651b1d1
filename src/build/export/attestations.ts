// Attestations as in-toto statements, and the manifest that carries them beside an image (BuildKit docs, "Image attestation storage").
import { invalidArgument } from "../../lib/errors.ts";
import { type Descriptor, formatPlatform, MEDIA, type Platform, parseReference, withDefaultTag } from "../../oci/index.ts";
import { childLabels, writeBytes } from "../content.ts";
import type { BuilderHost, Lease } from "../host.ts";
import type { Attestation } from "../session.ts";

const STATEMENT = "https://in-toto.io/Statement/v0.1";
const IN_TOTO = "application/vnd.in-toto+json";
const ARTIFACT = "application/vnd.docker.attestation.manifest.v1+json";
const EMPTY_JSON = "application/vnd.oci.empty.v1+json";
const MAX_STATEMENT = 64 << 20;
const MAX_STATEMENTS = 1000;

export interface Statement {
  predicateType: string;
  predicate: unknown;
  subjects: { kind: "self" | "raw"; name: string; digest: string[] }[];
  /** Where a file export puts it. */
  path: string;
  /** The name of the image's own SBOM, where this is a part of it. */
  core: string | undefined;
}

/** The package URL of an image. */
export function imagePurl(ref: string, platform: Platform | undefined): string {
  const reference = withDefaultTag(parseReference(ref));
  const parts = [...(reference.domain === "docker.io" ? [] : [reference.domain]), ...reference.path.replace(/^library\//, "").split("/")];
  const name = parts.map(encodeURIComponent).join("/");
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
  throw invalidArgument(`cannot decode in-toto statement: ${what} is no JSON object`);
}

const PROVENANCE = "https://slsa.dev/provenance/";
const mine = (type: string, verb: string): void => {
  if (type.startsWith(PROVENANCE)) throw invalidArgument(`frontend may not ${verb} provenance attestations`);
};

/** What a frontend's or a scanner's attestations say, those about the image itself first. A bundle is a directory of statements. */
export async function statementsOf(attestations: readonly Attestation[]): Promise<Statement[]> {
  const found: Statement[] = [];
  for (const { kind, ref, path, content, metadata, predicateType, subjects } of attestations) {
    const named = Buffer.from(metadata.get("sbom-core") ?? []).toString("utf8");
    const coreOf = (file: string) => (named !== "" && file.split(".")[0] === named ? named : undefined);
    if (kind === "in-toto") {
      mine(predicateType, "set");
      const bytes = content ?? (await ref?.readFile(path));
      if (!bytes) throw invalidArgument("attestation does not have available content");
      const file = path.split("/").at(-1) ?? "";
      if (file === "") throw invalidArgument("attestation does not have set path");
      found.push({ predicateType, predicate: parse(bytes, path), subjects, core: coreOf(file), path: file });
      continue;
    }
    if (!ref) throw invalidArgument("no ref provided for attestation bundle");
    const kinds = [0o100000, 0o120000];
    for (const { path: file, mode, size } of await ref.readDir(path || "/")) {
      if (!kinds.includes(mode & 0o170000) || found.length >= MAX_STATEMENTS || size > MAX_STATEMENT) continue;
      const statement = parse(await ref.readFile(`${path.replace(/\/$/, "")}/${file}`), file);
      const { predicateType: type, subject, predicate } = statement;
      if (typeof type !== "string") throw invalidArgument(`the attestation ${file} has no predicateType`);
      if (predicateType !== "" && type !== predicateType)
        throw invalidArgument(`bundle entry ${type} does not match required predicate type ${predicateType}`);
      mine(type, "bundle");
      found.push({ predicateType: type, predicate, subjects: subjectsOf(subject, file), core: coreOf(file), path: file });
    }
  }
  return [...found.filter(({ core }) => core !== undefined), ...found.filter(({ core }) => core === undefined)];
}

function subjectsOf(subject: unknown, what: string): Statement["subjects"] {
  if (subject === undefined || subject === null) return [];
  if (!Array.isArray(subject)) throw invalidArgument(`the attestation ${what} has subjects that are no list`);
  return subject.map((each: { name?: unknown; digest?: unknown } | null) => ({
    kind: "raw",
    name: String(each?.name ?? ""),
    digest: Object.entries(each?.digest ?? {}).map(([algorithm, hex]) => `${algorithm}:${hex}`),
  }));
}

/** A statement about an image (by its names), or about files. */
export function statementJson(
  { predicateType, predicate, subjects }: Statement,
  about: { name: string; digest: string }[],
): Record<string, unknown> {
  const digestSet = (digests: string[]) => Object.fromEntries(digests.map((digest) => digest.split(":") as [string, string]));
  const all: Statement["subjects"] = subjects.length > 0 ? subjects : [{ kind: "self", name: "", digest: [] }];
  const subject = all.flatMap(({ kind, name, digest }) => {
    if (kind === "raw") return [{ name: name || "_", digest: digestSet(digest) }];
    const names = (own: string) => (name === "" || name === "_" ? [own] : [own, name]);
    return about.flatMap((each) => names(each.name).map((own) => ({ name: own, digest: digestSet([each.digest]) })));
  });
  return { _type: STATEMENT, predicateType, subject, predicate };
}

/** Writes the manifest of the attestations of one image manifest; answers its descriptor for the index. */
export async function attestationManifest(
  host: BuilderHost,
  lease: Lease,
  image: { manifest: Descriptor; names: string[]; platform: Platform | undefined },
  statements: readonly Statement[],
  artifact: boolean,
): Promise<Descriptor> {
  const { manager } = host;
  const { digest } = image.manifest;
  const about = image.names.map((name) => ({ name: imagePurl(name, image.platform), digest }));
  const layers: Descriptor[] = [];
  for (const statement of statements) {
    const bytes = Buffer.from(JSON.stringify(statementJson(statement, about)));
    const written = await writeBytes(manager, bytes, { mediaType: IN_TOTO, labels: {}, lease });
    layers.push({ ...written, annotations: { "in-toto.io/predicate-type": statement.predicateType } });
  }
  const unknown = { architecture: "unknown", os: "unknown" };
  const rootfs = { type: "layers", diff_ids: layers.map((layer) => layer.digest) };
  const config = artifact ? "{}" : JSON.stringify({ ...unknown, config: {}, rootfs });
  const mediaType = artifact ? EMPTY_JSON : MEDIA.ociConfig;
  const configured = await writeBytes(manager, Buffer.from(config), { mediaType, labels: {}, lease });
  const document = {
    schemaVersion: 2,
    mediaType: MEDIA.ociManifest,
    ...(artifact ? { artifactType: ARTIFACT } : {}),
    config: artifact ? { ...configured, data: Buffer.from(config).toString("base64") } : configured,
    layers,
    ...(artifact ? { subject: image.manifest } : {}),
  };
  const labels = childLabels("manifest", [configured, ...layers]);
  const written = await writeBytes(manager, Buffer.from(JSON.stringify(document)), { mediaType: MEDIA.ociManifest, labels, lease });
  return {
    ...written,
    platform: unknown,
    annotations: { "vnd.docker.reference.digest": digest, "vnd.docker.reference.type": "attestation-manifest" },
  };
}
