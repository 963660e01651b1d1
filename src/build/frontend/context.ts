// Where a build's files come from: the client's directory, git, an address, or contexts with names. Only the Dockerfile and .dockerignore are read here; the rest
// is sources of the graph.
import { readFile } from "node:fs/promises";
import { join, posix } from "node:path";
import type { ImageConfig } from "../../api/types.ts";
import type { Definition } from "../../gen/pb_pb.ts";
import { failedPrecondition, invalidArgument, isKind, notFound, unimplemented } from "../../lib/errors.ts";
import {
  choosePlatform,
  detectCompression,
  familiarReference,
  formatPlatform,
  formatReference,
  hexOf,
  nameOf,
  type Platform,
  parseImageConfig,
  parseReference,
  withDefaultTag,
} from "../../oci/index.ts";
import { createMatcher, ignorePatterns, type Matcher } from "../dockerfile/index.ts";
import type { BaseImage } from "../host.ts";
import type { Ref } from "../session.ts";
import { createMarshaller, importDefinition, type Output } from "./nodes.ts";
import type { FrontendOptions } from "./options.ts";
import { gitReference, gitSource, httpSource, imageSource, isAddress, localSource, ociLayoutSource } from "./sources.ts";
import type { FrontendRequest } from "./types.ts";

/** What an image says of itself. */
export type ImageFacts = Pick<BaseImage, "config" | "history" | "platform" | "author"> & { id: string };

export interface NamedContext {
  output: Output | undefined;
  /** Where it is an image. */
  image: ImageFacts | undefined;
}

export interface Contexts {
  /** The main context, of which this path is wanted. */
  main(path: string): Output | undefined;
  /** The main context with what is wanted of it. */
  readonly whole: Output | undefined;
  named(name: string, platform: Platform): Promise<NamedContext | undefined>;
  /** What .dockerignore leaves out of the main context. */
  readonly ignored: Matcher | undefined;
  /** Says to the main context which of its files are wanted; nothing may be asked for afterwards. */
  finish(): void;
}

export interface LoadedDockerfile {
  filename: string;
  text: string;
  /** The vertex that warnings belong to. */
  vertex: string;
}

const internal = (name: string) => ({ name: `[internal] ${name}` });

function loader(request: FrontendRequest) {
  const marshaller = createMarshaller({ filename: "", data: new Uint8Array() });
  return {
    digest: (output: Output | undefined) => (output ? marshaller.digest(output) : ""),
    ref: (output: Output | undefined): Ref => request.session.load(marshaller.definition(output)),
  };
}

/** The bytes of a file, undefined where there is none. */
async function readOr(ref: Ref, path: string, range?: { offset: number; length: number }): Promise<Uint8Array | undefined> {
  try {
    return await ref.readFile(path, range);
  } catch (error) {
    if (isKind(error, "NotFound") || /no such file|not exist|not found/i.test(String(error))) return undefined;
    throw error;
  }
}

const decoder = new TextDecoder();

export function isArchive(head: Uint8Array): boolean {
  if (detectCompression(head) !== "none") return true;
  return head.length >= 262 && Buffer.from(head.subarray(257, 262)).toString("latin1") === "ustar";
}

function copied(from: Output, src: string, unpack: boolean, name: string): Output {
  const copy = {
    src,
    dest: "/",
    mode: -1,
    createDestPath: true,
    dirCopyContents: true,
    attemptUnpackDockerCompatibility: unpack,
    timestamp: -1n,
  };
  const action = { case: "copy" as const, value: copy as never };
  return {
    node: {
      op: { case: "file", value: { actions: [{ input: -1n, secondaryInput: 0n, output: 0n, action }] } },
      inputs: [from],
      platform: undefined,
      meta: internal(name),
    },
    index: 0,
  };
}

/** The main context where it is none of the client's directories, and where the Dockerfile is. */
async function remoteContext(
  request: FrontendRequest,
  options: FrontendOptions,
): Promise<{ output: Output; dockerfile: string | undefined } | undefined> {
  const given = request.inputs?.get(options.contextKey);
  if (given) {
    const output = importDefinition(given);
    if (output) return { output, dockerfile: undefined };
  }
  const address = options.context;
  if (!address) return undefined;
  const git = gitReference(address, true);
  if (git)
    return {
      output: gitSource(git, options.keepGitDir, internal(`load git source ${address}`)),
      dockerfile: undefined,
    };
  if (!isAddress(address)) {
    if (/^[a-z][a-z0-9+.-]*:\/\//i.test(address)) throw unimplemented(`build contexts of the kind ${address.split(":")[0]}`);
    return undefined;
  }
  const http = httpSource(address, "context", undefined, internal("load remote build context"));
  const head = await loader(request).ref(http).readFile("context", { offset: 0, length: 1024 });
  if (isArchive(head)) return { output: copied(http, "/context", true, "extracting build context"), dockerfile: undefined };
  return { output: http, dockerfile: "context" };
}

/** The main context's own .dockerignore; "" where there is none. */
async function ignoreFile(request: FrontendRequest, options: FrontendOptions): Promise<string> {
  const name = ".dockerignore";
  const source = localSource(
    options.contextKey,
    { followPaths: [name], sharedKeyHint: `${options.contextKey}-${name}`, differ: "none" },
    internal(`load ${name}`),
  );
  const found = await readOr(loader(request).ref(source), name);
  return found ? decoder.decode(found) : "";
}

/** An image in an OCI layout of the client. */
async function layoutImage(request: FrontendRequest, store: string, digest: string, platform: Platform): Promise<ImageFacts> {
  if (!request.host.ociLayout) throw unimplemented("contexts from an OCI layout by this door");
  const layout = await request.host.ociLayout(store, digest, request.signal);
  try {
    const blob = async (of: string) => readFile(join(layout.directory, "blobs", of.split(":")[0]!, hexOf(of as never)));
    let manifest = JSON.parse((await blob(digest)).toString()) as {
      manifests?: { digest: string; platform?: Platform }[];
      config?: { digest: string };
    };
    if (manifest.manifests) {
      const chosen = choosePlatform(manifest.manifests, platform);
      if (!chosen) throw notFound(`no match for platform ${formatPlatform(platform)} in the OCI layout ${store}`);
      manifest = JSON.parse((await blob(chosen.digest)).toString()) as typeof manifest;
    }
    if (!manifest.config) throw invalidArgument(`the OCI layout ${store} has no image manifest ${digest}`);
    const config = parseImageConfig(await blob(manifest.config.digest));
    return {
      id: manifest.config.digest,
      config: config.config as ImageConfig,
      history: config.history,
      platform: { os: config.os, architecture: config.architecture, ...(config.variant ? { variant: config.variant } : {}) },
      author: config.author ?? "",
    };
  } finally {
    await layout.release();
  }
}

/** What an input's metadata says: JSON with a "containerimage.config" in base64 or as text. */
function inputImage(text: string | undefined, platform: Platform): ImageFacts | undefined {
  if (text === undefined) return undefined;
  const metadata = JSON.parse(text) as Record<string, string>;
  const given = metadata[`containerimage.config/${formatPlatform(platform)}`] ?? metadata["containerimage.config"];
  if (given === undefined) return undefined;
  const bytes = given.startsWith("{") ? Buffer.from(given) : Buffer.from(given, "base64");
  const config = parseImageConfig(bytes);
  return {
    id: "",
    config: config.config as ImageConfig,
    history: config.history,
    platform: { os: config.os, architecture: config.architecture, ...(config.variant ? { variant: config.variant } : {}) },
    author: config.author ?? "",
  };
}

export async function openContexts(
  request: FrontendRequest,
  options: FrontendOptions,
): Promise<{ contexts: Contexts; dockerfile: LoadedDockerfile }> {
  const load = loader(request);
  const remote = await remoteContext(request, options);
  const base =
    remote && options.subdirectory
      ? { ...remote, output: copied(remote.output, options.subdirectory, false, "load subdirectory") }
      : remote;

  // The Dockerfile: beside a remote context, or from the client.
  let { filename } = options;
  let source: Output | undefined;
  const given = request.inputs?.get(options.dockerfileKey);
  if (given) source = importDefinition(given);
  else if (base && !options.localDockerfile) {
    source = base.output;
    filename = base.dockerfile ?? filename;
  } else {
    const names = [filename, `${filename}.dockerignore`, ...(filename === "Dockerfile" ? ["dockerfile"] : [])];
    source = localSource(
      options.dockerfileKey,
      { followPaths: names, sharedKeyHint: options.dockerfileKey, differ: "none" },
      internal(`load build definition from ${filename}`),
    );
  }
  const files = load.ref(source);
  // .dockerignore is for what a client sends. Both files are asked for at once: each is a journey to the client.
  const ignoring = base ? Promise.resolve("") : ignoreFile(request, options);
  ignoring.catch(() => {});
  let bytes = await readOr(files, filename);
  if (!bytes && /(^|\/)Dockerfile$/.test(filename)) {
    const lower = filename.replace(/Dockerfile$/, "dockerfile");
    bytes = await readOr(files, lower);
    if (bytes) filename = lower;
  }
  if (!bytes) throw notFound(`failed to read dockerfile: open ${filename}: no such file or directory`);
  const text = decoder.decode(bytes);

  // One that lies beside the Dockerfile and bears its name counts instead.
  const own = base ? undefined : await readOr(files, `${options.filename}.dockerignore`);
  const patterns = ignorePatterns(own?.length ? decoder.decode(own) : await ignoring);
  const wanted = new Set<string>();
  let everything = false;
  const main: Output | undefined = base
    ? base.output
    : localSource(options.contextKey, { excludePatterns: patterns, sharedKeyHint: options.contextKey }, internal("load build context"));
  const remembered = new Map<string, Promise<NamedContext | undefined>>();

  async function open(name: string, value: string, platform: Platform): Promise<NamedContext> {
    const colon = value.indexOf(":");
    const kind = value.slice(0, colon);
    const rest = value.slice(colon + 1);
    if (kind === "docker-image") {
      const ref = rest.replace(/^\/\//, "");
      if (ref === "scratch") return { output: undefined, image: undefined };
      const mode = options.resolveMode;
      const image = await request.host.resolveImage(ref, options.platforms.length > 0 ? formatPlatform(platform) : undefined, mode);
      return { output: imageOutput(ref, image, platform, `[context ${name}] ${ref}`, mode), image };
    }
    if (kind === "oci-layout") {
      const reference = parseReference(rest.replace(/^\/\//, ""));
      if (!reference.digest) throw invalidArgument(`oci-layout reference ${rest} has no digest`);
      const store = nameOf(reference).replace(/^docker\.io\/(library\/)?/, "");
      const shown = `${formatReference(withDefaultTag(parseReference(name.split("::")[0]!)))}@${reference.digest}`;
      const image = await layoutImage(request, store, reference.digest, platform);
      return { output: ociLayoutSource(shown, store, platform, { name: `[context ${name}] OCI load from client` }), image };
    }
    if (kind === "local") {
      const hidden = localSource(
        rest,
        { followPaths: [".dockerignore"], sharedKeyHint: `context:${name}-.dockerignore`, differ: "none" },
        { name: `[context ${name}] load .dockerignore` },
      );
      const found = await readOr(load.ref(hidden), ".dockerignore");
      const excludePatterns = found ? ignorePatterns(decoder.decode(found)) : [];
      return {
        output: localSource(rest, { excludePatterns, sharedKeyHint: `context:${name}` }, { name: `[context ${name}] load from client` }),
        image: undefined,
      };
    }
    if (kind === "input") {
      const definition = request.inputs?.get(rest);
      if (!definition) throw invalidArgument(`invalid input ${rest} for ${name}`);
      return { output: importDefinition(definition), image: inputImage(options.inputMetadata.get(rest), platform) };
    }
    const git = gitReference(value, true);
    if (git)
      return { output: gitSource(git, options.keepGitDir, { name: `[context ${name}] load git source ${value}` }), image: undefined };
    if (isAddress(value)) {
      const http = httpSource(value, "context", undefined, { name: `[context ${name}] ${value}` });
      const head = await load.ref(http).readFile("context", { offset: 0, length: 1024 });
      return { output: isArchive(head) ? copied(http, "/context", true, `[context ${name}] extract ${value}`) : http, image: undefined };
    }
    throw invalidArgument(`unsupported context source ${kind} for ${name}`);
  }

  const contexts: Contexts = {
    main(path) {
      if (path === "/" || path === "") everything = true;
      else {
        // A client's wildcards are for one directory; of "a/**/b" all of "a" is wanted.
        const parts = posix.join("/", path).slice(1).replace(/\/$/, "").split("/");
        const deep = parts.findIndex((part) => part.includes("**"));
        if (deep === 0) everything = true;
        else wanted.add((deep < 0 ? parts : parts.slice(0, deep)).join("/"));
      }
      return main;
    },
    whole: main,
    async named(name, platform) {
      if (options.contexts.size === 0) return undefined;
      let familiar = name;
      try {
        familiar = familiarReference(withDefaultTag(parseReference(name))).replace(/:latest$/, "");
      } catch {
        // a stage's name need not be one of an image
      }
      const at = formatPlatform(platform);
      const key = [`${name}::${at}`, `${familiar}::${at}`, name, familiar].find((each) => options.contexts.has(each));
      if (key === undefined) return undefined;
      const id = `${key} ${at}`;
      const known = remembered.get(id) ?? open(name, options.contexts.get(key)!, platform);
      remembered.set(id, known);
      return known;
    },
    ignored: patterns.length > 0 ? createMatcher(patterns) : undefined,
    finish() {
      if (base || !main || main.node.op.case !== "source" || everything) return;
      if (wanted.size === 0) return;
      const attrs = { ...main.node.op.value.attrs, "local.followpaths": JSON.stringify([...wanted].sort()) };
      main.node.op.value.attrs = Object.fromEntries(Object.entries(attrs).sort(([a], [b]) => (a < b ? -1 : 1)));
    },
  };
  if (text.trim() === "") throw failedPrecondition(`the Dockerfile (${filename}) cannot be empty`);
  return { contexts, dockerfile: { filename, text, vertex: load.digest(source) } };
}

/** What an image's name is in LLB: with the digest that it leads to, so that nothing else can come of it. */
export function canonical(ref: string, digest: string | undefined): string {
  try {
    const reference = withDefaultTag(parseReference(ref));
    const shown = formatReference(reference);
    return digest === undefined || reference.digest ? shown : `${shown}@${digest}`;
  } catch {
    return ref;
  }
}

export function imageOutput(
  ref: string,
  image: Pick<BaseImage, "digest" | "name">,
  platform: Platform,
  name: string,
  mode: FrontendOptions["resolveMode"],
): Output {
  return imageSource(canonical(image.name ?? ref, image.digest), platform, { name }, mode === "default" ? undefined : mode);
}

/** An image as a definition of its own. */
export function imageDefinition(ref: string, image: Pick<BaseImage, "digest" | "name" | "platform">): Definition {
  const output = imageOutput(ref, image, image.platform, `docker-image://${canonical(image.name ?? ref, image.digest)}`, "default");
  return createMarshaller({ filename: "", data: new Uint8Array() }).definition(output);
}
