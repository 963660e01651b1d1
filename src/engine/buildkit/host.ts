// What a build asks of the world, answered by the client's session and the engine.

import { Code, ConnectError } from "@connectrpc/connect";
import type { BaseImage, BuildEvent, BuildHost, ImageRequest, Status } from "../../build/index.ts";
import { type Credentials, openRepository, type Repository } from "../../distribution/index.ts";
import { Secrets } from "../../gen/moby/buildkit/secrets/v1_pb.ts";
import { Auth } from "../../gen/moby/filesync/v1_pb.ts";
import { Upload } from "../../gen/moby/upload/v1_pb.ts";
import { Failure, failedPrecondition, messageOf } from "../../lib/errors.ts";
import { digestOf, formatPlatform, formatReference, parseReference, type Reference, withDefaultTag } from "../../oci/index.ts";
import { lookUpBase } from "../build/images.ts";
import { prepareStep } from "../build/step.ts";
import type { Engine } from "../context.ts";
import { coreOf } from "../images/core.ts";
import type { ProgressSink } from "../images/progress.ts";
import { openAgent } from "./agent.ts";
import { fetchLayout } from "./content.ts";
import type { Locals } from "./locals.ts";
import { createQueue } from "./queue.ts";
import type { Session } from "./sessions.ts";
import type { Uploads } from "./uploads.ts";

const MAX_SECRET = 500 << 10;

/** The client's credentials for a registry; undefined where it has none. */
export async function credentialsOf(session: Session | undefined, domain: string): Promise<Credentials | undefined> {
  if (!session?.supports("/moby.filesync.v1.Auth/Credentials")) return undefined;
  const Host = domain === "docker.io" ? "registry-1.docker.io" : domain;
  const { Username, Secret } = await session.client(Auth).credentials({ Host }, { timeoutMs: 60_000 });
  if (Secret === "") return undefined;
  return Username === "" ? { identityToken: Secret } : { username: Username, password: Secret };
}

/** Lines of a pull as statuses of a vertex. */
function pullSink(status: (status: Status) => void): ProgressSink {
  return {
    line({ id, status: text }) {
      if (id && text && /^(Download complete|Pull complete|Already exists)$/.test(text))
        status({ id, name: id, current: 0, total: 0, completed: true });
    },
    bar(id, text, current, total) {
      if (text === "Downloading") status({ id, name: id, current, total, completed: false });
    },
  };
}

export interface HostOptions {
  engine: Engine;
  /** Undefined: the client offers nothing. */
  session: Session | undefined;
  locals: Locals;
  uploads: Uploads;
  onEvent(event: BuildEvent): void;
  signal: AbortSignal;
}

export function createBuildHost(options: HostOptions): BuildHost {
  const { engine, session, locals, uploads, onEvent, signal } = options;
  const core = coreOf(engine);
  const runDir = `${engine.config.execRoot}/buildkit`;
  const need = (): Session => {
    if (!session) throw failedPrecondition("could not access local files without session");
    return session;
  };
  const credentials = new Map<string, Promise<Credentials | undefined>>();
  const credentialsFor = (domain: string) => {
    let known = credentials.get(domain);
    if (!known) {
      known = credentialsOf(session, domain);
      known.catch(() => credentials.delete(domain));
      credentials.set(domain, known);
    }
    return known;
  };

  /** What brings the layers of images that are lazy. */
  const fetches = new Map<string, (sink: ProgressSink, signal: AbortSignal) => Promise<void>>();
  const nameOfLazy = ({ id, layers }: BaseImage) => [id, ...layers.map(({ descriptor }) => descriptor.digest)].join();

  async function lookUp(reference: Reference, platform: string | undefined, mode: ImageRequest["mode"]): Promise<BaseImage> {
    const { image, fetch } = await lookUpBase(core, formatReference(reference), platform, {
      // "local" prefers what is here, as the default does.
      always: mode === "pull",
      never: mode === "local",
      credentials: (domain) => credentialsFor(domain).catch(() => undefined),
      signal,
    });
    if (fetch) fetches.set(nameOfLazy(image), fetch);
    return image;
  }

  // The same image may be asked for by several stages, and once more by its digest when it is used.
  const resolved = new Map<string, Promise<BaseImage>>();
  const byDigest = new Map<string, BaseImage>();

  async function resolveImage(ref: string, platform: string | undefined, mode: ImageRequest["mode"] = "default"): Promise<BaseImage> {
    const reference = withDefaultTag(parseReference(ref));
    const full = formatReference(reference);
    const key = `${full} ${platform ?? ""} ${mode}`;
    const known = resolved.get(key);
    if (known) return known;
    const pinned = reference.digest && byDigest.get(`${reference.digest} ${platform ?? ""}`);
    if (pinned) return pinned;
    const digest = digestOf(`load metadata ${key}`);
    const started = Date.now();
    const vertex = {
      kind: "vertex" as const,
      digest,
      inputs: [],
      name: `[internal] load metadata for ${full}`,
      group: undefined,
      cached: false,
    };
    onEvent({ ...vertex, started, completed: undefined, error: undefined });
    const looking = lookUp(reference, platform, mode);
    resolved.set(key, looking);
    try {
      const image = await looking;
      for (const each of [platform ?? "", formatPlatform(image.platform)]) if (image.digest) byDigest.set(`${image.digest} ${each}`, image);
      onEvent({ ...vertex, started, completed: Date.now(), error: undefined });
      return image;
    } catch (error) {
      resolved.delete(key);
      const text = `failed to resolve source metadata for ${full}: ${messageOf(error)}`;
      onEvent({ ...vertex, started, completed: Date.now(), error: text });
      throw error instanceof Failure ? new Failure(error.kind, text, { cause: error }) : error;
    }
  }

  return {
    resolveImage,
    fetchImage: async (image, status, aborted) => fetches.get(nameOfLazy(image))?.(pullSink(status), aborted),
    prepareStep: (request) => prepareStep(engine, request, {}),
    localSource: (request, status, aborted) => locals.receive(need(), request, status, aborted),
    ociLayout: (store, digest, aborted) =>
      fetchLayout(need(), store.includes(":") ? store : `oci:${store}`, digest, `${engine.config.dataRoot}/buildkit/layouts`, aborted),
    async *upload(url, aborted) {
      const { pathname, host } = new URL(url);
      const offered = /^\/upload-request\/(.+)$/.exec(pathname);
      if (offered) {
        yield* (await uploads.take(offered[1]!)) as AsyncIterable<Uint8Array>;
        return;
      }
      const call = need()
        .client(Upload)
        .pull(createQueue(), { headers: { urlpath: pathname, urlhost: host }, signal: aborted });
      for await (const { data } of call) yield data;
    },
    async secret(id) {
      if (!session?.supports("/moby.buildkit.secrets.v1.Secrets/GetSecret")) return undefined;
      try {
        const { data } = await session.client(Secrets).getSecret({ ID: id }, { signal, timeoutMs: 60_000 });
        if (data.length > MAX_SECRET) throw failedPrecondition(`secret ${id} is longer than ${MAX_SECRET} bytes`);
        return data;
      } catch (error) {
        if (error instanceof ConnectError && (error.code === Code.NotFound || error.code === Code.Unimplemented)) return undefined;
        throw error;
      }
    },
    async ssh(id) {
      if (!session?.supports("/moby.sshforward.v1.SSH/CheckAgent")) return undefined;
      return openAgent(session, id || "default", runDir);
    },
    async repository(ref, { insecure, push }): Promise<Repository> {
      const reference = withDefaultTag(parseReference(ref));
      const registry = insecure ? { ...core.registry, insecure: [...core.registry.insecure, reference.domain] } : core.registry;
      const known = await credentialsFor(reference.domain);
      return openRepository(reference, registry, known, push ? "push" : "pull");
    },
  };
}
