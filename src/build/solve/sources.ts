// Source operations: what comes into a build from outside.
import { mkdirSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { join } from "node:path";
import type { Op, Platform as PlatformMessage, SourceOp } from "../../gen/pb_pb.ts";
import { failedPrecondition, invalidArgument, notFound, unimplemented } from "../../lib/errors.ts";
import { digestOf, formatPlatform, type Platform } from "../../oci/index.ts";
import type { BaseImage, BuilderHost, BuildHost, Status } from "../host.ts";
import { gitSource, openRepository } from "../sources/git.ts";
import { fetchSource, type HttpSource, httpSource, parseValidators, type Validators } from "../sources/http.ts";
import { localRequest } from "../sources/local.ts";
import { layoutImage } from "../sources/oci-layout.ts";
import { EMPTY, once, type Tree, treeOf } from "./workspace.ts";

export interface SourceOptions {
  host: BuilderHost;
  build: BuildHost;
  /** Images that are looked up already, by identifier. */
  images: ReadonlyMap<string, BaseImage>;
  status(status: Status): void;
  log(bytes: Uint8Array): void;
  /** Told when the image's layers are really fetched, which may be much later than the solving. */
  fetching<T>(work: () => Promise<T>): Promise<T>;
  /** What is kept from build to build. */
  memory: { get(name: string): string | undefined; set(name: string, text: string): void };
  /** What must be done at the end of the build. */
  later(work: () => Promise<void>): void;
  lease: { headers: Record<string, string> };
  signal: AbortSignal;
}

export function platformOf(message: PlatformMessage | undefined): Platform | undefined {
  if (!message || message.OS === "") return undefined;
  return {
    os: message.OS,
    architecture: message.Architecture,
    ...(message.Variant ? { variant: message.Variant } : {}),
    ...(message.OSVersion ? { "os.version": message.OSVersion } : {}),
  };
}

export interface SolvedSource {
  tree: Tree;
  /** Nothing was done for it. */
  cached: boolean;
  image?: BaseImage;
  /** What it was, for a provenance. */
  material?: { uri: string; digest: string };
}

async function imageSource(op: Op, { identifier, attrs }: SourceOp, options: SourceOptions): Promise<SolvedSource> {
  const { build } = options;
  let image = options.images.get(identifier);
  if (!image) {
    const platform = platformOf(op.platform);
    const modes: Record<string, "default" | "pull" | "local"> = { default: "default", pull: "pull", local: "default" };
    const mode = modes[attrs["image.resolvemode"] || "default"];
    if (!mode) throw invalidArgument(`unknown image resolve mode ${attrs["image.resolvemode"]}`);
    image = await build.resolveImage(identifier.slice("docker-image://".length), platform && formatPlatform(platform), mode);
  }
  const found = image;
  const { fetchImage } = build;
  const fetch =
    found.lazy && fetchImage && once(() => options.fetching(() => fetchImage.call(build, found, options.status, options.signal)));
  const limit = Number(attrs["image.layerlimit"] || Number.NaN);
  const layers = Number.isInteger(limit) && limit > 0 ? image.layers.slice(0, limit) : image.layers;
  const ref = identifier.slice("docker-image://".length);
  return { tree: treeOf(layers, fetch || undefined), cached: true, image, material: { uri: ref, digest: image.digest ?? image.id } };
}

/** One file. Where its digest is known (a checksum was given, or the server says that it is what it was), it is fetched only if somebody looks into it. */
async function httpTree(identifier: string, wanted: HttpSource, options: SourceOptions): Promise<SolvedSource> {
  const { host, signal, status, memory } = options;
  mkdirSync(host.dataDir, { recursive: true, mode: 0o700 });
  const directory = await mkdtemp(join(host.dataDir, "fetch-"));
  options.later(() => rm(directory, { recursive: true, force: true }));
  const { url, headers, checksum, filename, mode, uid, gid } = wanted;
  const name = `http ${digestOf(JSON.stringify([url, headers, filename]))}`;
  const before = checksum === undefined ? parseValidators(memory.get(name)) : undefined;
  const digestWith = (file: { digest: string; filename: string }) => [file.digest, file.filename, mode, uid, gid].join(" ");
  const upload = new URL(url).host === "buildkit-session" ? options.build.upload?.bind(options.build) : undefined;
  const get = (validators?: Validators) => fetchSource(directory, { ...wanted, validators }, { signal, status, upload });
  const treeWith = (digest: string, fetch?: () => Promise<void>): Tree => ({ ...EMPTY, directory, digest, fetch });
  if (checksum !== undefined && filename !== "") {
    const fetch = once(() => options.fetching(async () => void (await get())));
    return {
      tree: treeWith(digestWith({ digest: checksum, filename }), fetch),
      cached: true,
      material: { uri: identifier, digest: checksum },
    };
  }
  const found = await get(before);
  if (found === "unchanged" && before) {
    const fetch = once(() => options.fetching(async () => void (await get())));
    return { tree: treeWith(digestWith(before), fetch), cached: true, material: { uri: identifier, digest: before.digest } };
  }
  if (found === "unchanged") throw failedPrecondition(`${url}: unexpected status 304`);
  if (found.etag || found.lastModified) memory.set(name, JSON.stringify({ ...found, lastModified: found.lastModified?.toUTCString() }));
  return { tree: treeWith(digestWith(found)), cached: false, material: { uri: identifier, digest: found.digest } };
}

export async function solveSource(op: Op, vertex: string, options: SourceOptions): Promise<SolvedSource> {
  if (op.op.case !== "source") throw invalidArgument("not a source");
  const source = op.op.value;
  const { identifier, attrs } = source;
  const { host, build, signal, status } = options;
  const scheme = /^([a-z-]+):\/\//.exec(identifier)?.[1];
  switch (scheme) {
    case "docker-image":
      return imageSource(op, source, options);
    case "local": {
      if (!build.localSource) throw failedPrecondition("there is no build context");
      const { directory, release } = await build.localSource(localRequest(identifier, attrs, vertex), status, signal);
      options.later(release);
      return { tree: { ...EMPTY, directory }, cached: false };
    }
    case "http":
    case "https": {
      const wanted = httpSource(identifier, attrs);
      const secret = attrs["http.authheadersecret"];
      if (secret) {
        const bytes = await build.secret?.(secret);
        if (!bytes) throw notFound(`secret ${secret}: not found`);
        wanted.headers.authorization = Buffer.from(bytes).toString("utf8").trim();
      }
      return httpTree(identifier, wanted, options);
    }
    case "git": {
      const gitHost = {
        secret: async (id: string) => build.secret?.(id),
        ssh: async (id: string) => build.ssh?.(id),
      };
      const wanted = gitSource(identifier, attrs);
      const repository = await openRepository(host.dataDir, wanted, gitHost, { signal, log: options.log });
      options.later(async () => repository[Symbol.asyncDispose]());
      const { directory } = repository;
      const fetch = once(() => options.fetching(() => repository.checkOut()));
      const material = { uri: `${wanted.remote}${wanted.ref === "" ? "" : `#${wanted.ref}`}`, digest: `sha1:${repository.commit}` };
      const digest = [repository.commit, wanted.subdirectory, wanted.keepGitDir, wanted.skipSubmodules].join(" ");
      return { tree: { ...EMPTY, directory, digest, fetch }, cached: false, material };
    }
    case "oci-layout": {
      const image = await layoutImage(identifier, platformOf(op.platform), attrs, options);
      return { tree: treeOf(image.layers), cached: false, image };
    }
    default:
      throw unimplemented(`sources of the kind ${scheme ?? identifier.split(":")[0]}`);
  }
}
