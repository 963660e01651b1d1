// Transfers from and to a registry.
import { fromBinary } from "@bufbuild/protobuf";
import { type Credentials, openRepository, type Repository } from "../../distribution/index.ts";
import {
  AuthRequestSchema,
  AuthResponseSchema,
  AuthType,
  type ImageStore,
  type OCIRegistry,
} from "../../gen/containerd/types/transfer_pb.ts";
import { invalidArgument, unimplemented } from "../../lib/errors.ts";
import { createLimit } from "../../lib/limit.ts";
import { type Descriptor, MAX_CONFIG, type Platform, parseManifest, parseTagged, type Reference } from "../../oci/index.ts";
import {
  childLabels,
  chosen,
  descriptorOf,
  hasBlob,
  type Place,
  parsed,
  platformsOf,
  readBlob,
  refOf,
  setImage,
  streamBlob,
  unpack,
  writeBlob,
} from "./image-content.ts";
import { isType, type Streams } from "./streams.ts";

const DOWNLOADS = 3;

async function repositoryOf(registry: OCIRegistry, place: Place, streams: Streams, mode: "pull" | "push"): Promise<Repository> {
  const { resolver } = registry;
  const reference = parseTagged(registry.reference);
  if (resolver?.hostDir) throw unimplemented("registry configuration by hosts.toml directories");
  for (const header of Object.keys(resolver?.headers ?? {})) {
    if (header.toLowerCase() !== "user-agent") throw unimplemented(`own header ${header} in requests to a registry`);
  }
  const credentials = resolver?.authStream ? await credentialsFrom(resolver.authStream, reference, place, streams) : undefined;
  const insecure = resolver?.defaultScheme === "http" ? [reference.domain] : [];
  return openRepository(reference, { insecure, mirrors: [] }, credentials, mode);
}

/** The client is asked for them on a stream of its own. */
async function credentialsFrom(id: string, reference: Reference, place: Place, streams: Streams): Promise<Credentials | undefined> {
  const stream = streams.get(place.namespace, id);
  stream.send(AuthRequestSchema, { host: reference.domain, reference: `${reference.domain}/${reference.path}` });
  const { value, done } = await stream.received.next();
  stream.close();
  if (done || !isType(value, AuthResponseSchema)) throw invalidArgument("the client did not answer the question for credentials");
  const answer = fromBinary(AuthResponseSchema, value.value);
  switch (answer.authType) {
    case AuthType.NONE:
      return undefined;
    case AuthType.CREDENTIALS:
      return { username: answer.username, password: answer.secret };
    case AuthType.REFRESH:
      return { identityToken: answer.secret };
    default:
      throw unimplemented("a ready-made authorization header for a registry");
  }
}

export async function pull(registry: OCIRegistry, store: ImageStore, place: Place, streams: Streams): Promise<void> {
  place.progress(`Resolving from OCI Registry (${registry.reference})`);
  const repository = await repositoryOf(registry, place, streams, "pull");
  const { reference, domain, path } = { reference: repository.reference, ...repository.reference };
  const platforms = platformsOf(store.platforms);
  const top = await repository.manifest(reference.digest ?? reference.tag!, place.signal);
  place.progress(`Pulling from OCI Registry (${registry.reference})`);
  place.progress("fetching image content", { name: registry.reference, descriptor: top.descriptor });
  const source = { [`containerd.io/distribution.source.${domain}`]: path };
  const gate = createLimit(DOWNLOADS);

  const fetchTree = async (descriptor: Descriptor, bytes: Uint8Array, parents: string[], depth: number): Promise<void> => {
    if (depth > 4) throw invalidArgument("image indexes are nested too deeply");
    const document = parseManifest(bytes, descriptor.mediaType);
    const below = [refOf(descriptor)];
    const labels = { ...source, ...childLabels(document) };
    await writeBlob(place, descriptor, labels, once(bytes), parents);
    if (document.index) {
      for (const child of chosen(document.index.manifests, depth === 0 ? platforms : [])) {
        const fetched = await repository.manifest(child, place.signal);
        await fetchTree(child, fetched.bytes, below, depth + 1);
      }
      return;
    }
    const { config, layers } = document.manifest;
    const stop = new AbortController();
    const signal = AbortSignal.any([stop.signal, place.signal]);
    const unique = [...new Map([config, ...layers].map((blob) => [blob.digest, blob])).values()];
    const fetches = unique.map((blob) =>
      gate(() => {
        place.progress("waiting", { name: refOf(blob), parents: below, total: blob.size, descriptor: blob });
        return writeBlob(place, blob, source, (offset) => repository.stream(blob, { offset, signal }), below);
      }).catch((error) => {
        stop.abort(error);
        throw error;
      }),
    );
    // the first failure is told, but nobody writes any more when it is
    await Promise.allSettled(fetches);
    await Promise.all(fetches);
  };
  await fetchTree(top.descriptor, top.bytes, [], 0);
  await unpack(place, top.descriptor, store);
  const image = setImage(place, store.name || registry.reference, top.descriptor, store.labels);
  place.progress("saved", { name: image.name, descriptor: top.descriptor });
  place.progress(`Completed pull from OCI Registry (${registry.reference})`);
}

const once = (bytes: Uint8Array) =>
  async function* (offset: number): AsyncIterable<Uint8Array> {
    yield bytes.subarray(offset);
  };

export async function push(store: ImageStore, registry: OCIRegistry, place: Place, streams: Streams): Promise<void> {
  place.progress(`Pushing to OCI Registry (${registry.reference})`);
  const image = place.images.get(place.namespace, store.name);
  const repository = await repositoryOf(registry, place, streams, "push");
  const platforms: Platform[] = platformsOf(store.platforms);
  const { signal } = place;

  const pushTree = async (descriptor: Descriptor, tag: string | undefined, depth: number): Promise<void> => {
    const document = await parsed(place, descriptor);
    if (document.index) {
      // an index whose platforms are not all here can't be pushed as a whole; what is wanted of it has to be here
      for (const child of chosen(document.index.manifests, depth === 0 ? platforms : [])) await pushTree(child, undefined, depth + 1);
    } else {
      for (const blob of [document.manifest.config, ...document.manifest.layers]) {
        const name = refOf(blob);
        const step = (event: string, progress: number) =>
          place.progress(event, { name, parents: [refOf(descriptor)], progress, total: blob.size, descriptor: blob });
        step("uploading", 0);
        const outcome = await repository.push(blob, () => streamBlob(place, blob.digest), {
          signal,
          onProgress: (bytes) => step("uploading", bytes),
        });
        step(outcome === "pushed" ? "done" : "already exists", blob.size);
      }
    }
    const bytes = await readBlob(place, descriptor, MAX_CONFIG);
    await repository.pushManifest(descriptor, bytes, tag, signal);
    place.progress("done", { name: refOf(descriptor), progress: descriptor.size, total: descriptor.size, descriptor });
  };
  const top = descriptorOf(image);
  const document = await parsed(place, top);
  const only = document.index && platforms.length > 0 ? chosen(document.index.manifests, platforms) : [];
  const complete = document.index?.manifests.every((child) => hasBlob(place, child.digest)) ?? true;
  await pushTree(complete || only.length !== 1 ? top : only[0]!, repository.reference.tag ?? "latest", 0);
  place.progress(`Completed push to OCI Registry (${registry.reference})`);
}
