// Manifests of registries, for the manifest commands, which talk to registries themselves: the engine has no part in it.
import { type Credentials, openRepository, RegistryError, type Repository } from "../../distribution/index.ts";
import { isKind } from "../../lib/errors.ts";
import { type Descriptor, MAX_CONFIG, MEDIA, parseImageConfig, parseManifest } from "../../oci/index.ts";
import type { Cli } from "../command.ts";
import { getCredentials, serverOf } from "../credentials.ts";
import { fullString, type Reference } from "../reference.ts";
import type { ListedManifest, ManifestPlatform } from "./store.ts";

async function credentialsOf(cli: Cli, domain: string): Promise<Credentials | undefined> {
  const found = await getCredentials(cli.config, serverOf(domain));
  if (!found) return undefined;
  const { username, password, identitytoken, registrytoken } = found;
  return {
    ...(username ? { username } : {}),
    ...(password ? { password } : {}),
    ...(identitytoken ? { identityToken: identitytoken } : {}),
    ...(registrytoken ? { registryToken: registrytoken } : {}),
  };
}

export async function open(cli: Cli, reference: Reference, insecure: boolean, mode: "pull" | "push" = "pull"): Promise<Repository> {
  const { domain, path, tag, digest } = reference;
  const registry = { insecure: insecure ? [domain] : [], mirrors: [] };
  const named = { domain, path, ...(tag ? { tag } : {}), ...(digest ? { digest } : {}) };
  return openRepository(named, registry, await credentialsOf(cli, domain), mode);
}

export class NoSuchManifest extends Error {}

/** The manifest or index of a name, as it came. */
async function fetched(repository: Repository, reference: Reference): Promise<{ descriptor: Descriptor; bytes: Uint8Array }> {
  try {
    return await repository.manifest(reference.digest ?? reference.tag!);
  } catch (error) {
    if (error instanceof RegistryError && [401, 403, 404].includes(error.status))
      throw new NoSuchManifest(`no such manifest: ${fullString(reference)}`);
    if (isKind(error, "Unavailable") && !(error instanceof RegistryError))
      throw new Error(`failed to configure transport: error pinging v2 registry: ${(error as Error).message}`, { cause: error });
    throw error;
  }
}

async function listed(repository: Repository, shown: string, descriptor: Descriptor, bytes: Uint8Array): Promise<ListedManifest> {
  const { manifest } = parseManifest(bytes, descriptor.mediaType);
  let platform: ManifestPlatform | undefined = descriptor.platform;
  if (!platform && manifest!.config.mediaType !== "application/vnd.oci.empty.v1+json") {
    const { os, architecture, variant, ...rest } = parseImageConfig(await repository.blob(manifest!.config, MAX_CONFIG));
    const version = rest["os.version"];
    platform = { architecture, os, ...(version ? { "os.version": version } : {}), ...(variant ? { variant } : {}) };
  }
  const mediaType = manifest!.mediaType;
  return {
    Ref: shown,
    Descriptor: { mediaType, digest: descriptor.digest, size: bytes.length, ...(platform ? { platform: ordered(platform) } : {}) },
    Raw: Buffer.from(bytes).toString("base64"),
    [mediaType === MEDIA.dockerManifest ? "SchemaV2Manifest" : "OCIManifest"]: JSON.parse(new TextDecoder().decode(bytes)),
  };
}

/** In the order in which docker writes a platform's fields. */
export function ordered({ architecture, os, variant, ...rest }: ManifestPlatform): ManifestPlatform {
  const version = rest["os.version"];
  const features = rest["os.features"];
  return {
    architecture,
    os,
    ...(version ? { "os.version": version } : {}),
    ...(features?.length ? { "os.features": features } : {}),
    ...(variant ? { variant } : {}),
  };
}

/** One image; an error where the name is a list's, or nobody's. */
export async function fetchManifest(cli: Cli, reference: Reference, insecure: boolean): Promise<ListedManifest> {
  const repository = await open(cli, reference, insecure);
  const { descriptor, bytes } = await fetched(repository, reference);
  if (parseManifest(bytes, descriptor.mediaType).index) throw new Error(`${fullString(reference)} is a manifest list`);
  return listed(repository, fullString(reference), descriptor, bytes);
}

/** What a name leads to: one image, or a list with its bytes and each of its images. */
export async function fetchAny(
  cli: Cli,
  reference: Reference,
  insecure: boolean,
): Promise<{ one: ListedManifest } | { bytes: Uint8Array; images(): Promise<ListedManifest[]> }> {
  const repository = await open(cli, reference, insecure);
  const { descriptor, bytes } = await fetched(repository, reference);
  const { index } = parseManifest(bytes, descriptor.mediaType);
  if (!index) return { one: await listed(repository, fullString(reference), descriptor, bytes) };
  return {
    bytes,
    async images() {
      const out: ListedManifest[] = [];
      for (const child of index.manifests) {
        const manifest = await repository.manifest(child);
        out.push(
          await listed(
            repository,
            `${fullString(reference)}@${child.digest}`,
            { ...child, mediaType: manifest.descriptor.mediaType },
            manifest.bytes,
          ),
        );
      }
      return out;
    },
  };
}

/** A list as docker writes it: these bytes are what is pushed. */
export function listBytes(manifests: readonly ListedManifest[]): { mediaType: string; bytes: Buffer } {
  const mediaType = manifests[0]?.Descriptor.mediaType === MEDIA.ociManifest ? MEDIA.ociIndex : MEDIA.dockerList;
  const entries = manifests.map(({ Descriptor: { mediaType, size, digest, platform } }) => ({
    mediaType,
    size,
    digest,
    ...(platform ? { platform: ordered(platform) } : {}),
  }));
  return { mediaType, bytes: Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType, manifests: entries }, null, 3)) };
}
