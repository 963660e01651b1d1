// The methods of the Engine API by resource, typed. Each is one request; those that stream give an async iterable or a raw stream.
import type {
  AuthConfig,
  AuthResponse,
  ContainerConfig,
  ContainerCreateResponse,
  ContainerInspectResponse,
  ContainerStatsResponse,
  ContainerSummary,
  ContainerTopResponse,
  ContainerUpdateResponse,
  ContainerWaitResponse,
  CreateImageInfo,
  EndpointSettings,
  FilesystemChange,
  HostConfig,
  ImageDeleteResponseItem,
  ImageHistoryResponseItem,
  ImageInspect,
  ImageSummary,
  NetworkCreateResponse,
  NetworkInspect,
  NetworkingConfig,
  Resources,
  RestartPolicy,
  SystemInfo,
  SystemVersion,
  Volume,
  VolumeCreateRequest,
  VolumeListResponse,
} from "../api/types.ts";
import { unavailable } from "../lib/errors.ts";
import type { HttpResponse } from "./http.ts";
import { type Caller, type CallerOptions, createCaller, encodeFilters, type QueryValue } from "./request.ts";
import { jsonLines, type RawStream, rawStream } from "./streams.ts";

export type Filters = Record<string, readonly string[]>;

/** One message of a progress stream (pull, push, load, import, build). */
export type ProgressMessage = CreateImageInfo & {
  progress?: string;
  error?: string;
  stream?: string;
  aux?: unknown;
  progressDetail?: { current?: number; total?: number; start?: number; units?: string; hidecounts?: boolean };
};

export interface CreateBody extends ContainerConfig {
  HostConfig?: HostConfig;
  NetworkingConfig?: NetworkingConfig;
  MacAddress?: string;
}

export interface ExecBody {
  AttachStdin?: boolean;
  AttachStdout?: boolean;
  AttachStderr?: boolean;
  DetachKeys?: string;
  Tty?: boolean;
  Env?: string[] | undefined;
  Cmd: string[];
  Privileged?: boolean;
  User?: string;
  WorkingDir?: string;
  ConsoleSize?: [number, number] | undefined;
}

export interface ExecInspect {
  ID: string;
  Running: boolean;
  ExitCode: number | null;
  ProcessConfig: unknown;
  ContainerID: string;
  Pid: number;
}

/** What stands in X-Docker-Container-Path-Stat. */
export interface PathStat {
  name: string;
  size: number;
  /** Go's file mode: bit 31 directory, bit 27 symbolic link. */
  mode: number;
  mtime: string;
  linkTarget: string;
}

export interface DiskUsage {
  LayersSize?: number;
  Images?: ImageSummary[] | null;
  Containers?: ContainerSummary[] | null;
  Volumes?: Volume[] | null;
  BuildCache?: Record<string, unknown>[] | null;
}

export interface PruneReport {
  ContainersDeleted?: string[] | null;
  ImagesDeleted?: ImageDeleteResponseItem[] | null;
  NetworksDeleted?: string[] | null;
  VolumesDeleted?: string[] | null;
  CachesDeleted?: string[] | null;
  SpaceReclaimed?: number;
}

const at = (id: string) => encodeURIComponent(id);
/** An image's name in a path: its slashes stay. */
const named = (name: string) => name.split("/").map(encodeURIComponent).join("/").replaceAll("%3A", ":").replaceAll("%40", "@");
const registryAuth = (auth: string | undefined) => (auth ? { headers: { "X-Registry-Auth": auth } } : {});

export type Client = ReturnType<typeof createClient>;

export function createClient(options: CallerOptions) {
  const caller = createCaller(options);
  const { send, json, done } = caller;
  const filters = (f: Filters | undefined) => encodeFilters(f);
  const upgrade = async (response: Promise<HttpResponse>): Promise<RawStream> => {
    const answer = await response;
    if (!answer.upgraded) throw unavailable(`unable to upgrade to tcp, received ${answer.status}`);
    return rawStream(answer);
  };
  return {
    target: options.target,
    caller: caller as Caller,
    version: () => caller.version(),
    close: () => caller.close(),
    containers: {
      list: (q: { all?: boolean; limit?: number | undefined; size?: boolean; filters?: Filters | undefined } = {}) =>
        json<ContainerSummary[]>("GET", "/containers/json", { query: { ...q, filters: filters(q.filters) } }),
      create: (
        body: CreateBody | ((version: number) => CreateBody),
        q: { name?: string | undefined; platform?: string | undefined } = {},
      ) => json<ContainerCreateResponse>("POST", "/containers/create", { query: q, json: body }),
      inspect: (id: string, q: { size?: boolean } = {}) =>
        json<ContainerInspectResponse>("GET", `/containers/${at(id)}/json`, { query: q }),
      start: (
        id: string,
        q: { detachKeys?: string | undefined; checkpoint?: string | undefined; "checkpoint-dir"?: string | undefined } = {},
      ) => done("POST", `/containers/${at(id)}/start`, { query: q }),
      checkpoints: {
        create: (id: string, body: { CheckpointID: string; CheckpointDir?: string; Exit: boolean }) =>
          done("POST", `/containers/${at(id)}/checkpoints`, { json: body }),
        list: (id: string, dir?: string) => json<{ Name: string }[] | null>("GET", `/containers/${at(id)}/checkpoints`, { query: { dir } }),
        remove: (id: string, checkpoint: string, dir?: string) =>
          done("DELETE", `/containers/${at(id)}/checkpoints/${at(checkpoint)}`, { query: { dir } }),
      },
      stop: (id: string, q: { t?: number | undefined; signal?: string | undefined } = {}) =>
        done("POST", `/containers/${at(id)}/stop`, { query: q }),
      restart: (id: string, q: { t?: number | undefined; signal?: string | undefined } = {}) =>
        done("POST", `/containers/${at(id)}/restart`, { query: q }),
      kill: (id: string, signal?: string) => done("POST", `/containers/${at(id)}/kill`, { query: { signal } }),
      remove: (id: string, q: { v?: boolean; force?: boolean; link?: boolean } = {}) =>
        done("DELETE", `/containers/${at(id)}`, { query: q }),
      rename: (id: string, name: string) => done("POST", `/containers/${at(id)}/rename`, { query: { name } }),
      pause: (id: string) => done("POST", `/containers/${at(id)}/pause`),
      unpause: (id: string) => done("POST", `/containers/${at(id)}/unpause`),
      /** Resolves to a function once the engine has taken the request: what follows can't be missed. */
      wait: async (id: string, condition?: "not-running" | "next-exit" | "removed", signal?: AbortSignal) => {
        const response = await send("POST", `/containers/${at(id)}/wait`, { query: { condition }, signal });
        return async () => JSON.parse(await response.text()) as ContainerWaitResponse;
      },
      top: (id: string, psArgs?: string) => json<ContainerTopResponse>("GET", `/containers/${at(id)}/top`, { query: { ps_args: psArgs } }),
      stats: async (id: string, q: { stream: boolean; "one-shot"?: boolean }, signal?: AbortSignal) =>
        jsonLines<ContainerStatsResponse>(
          await send("GET", `/containers/${at(id)}/stats`, { query: { ...q, stream: q.stream ? "1" : "0" }, signal }),
        ),
      logs: (
        id: string,
        q: {
          stdout: boolean;
          stderr: boolean;
          follow?: boolean;
          since?: string | undefined;
          until?: string | undefined;
          timestamps?: boolean;
          tail?: string | undefined;
          details?: boolean;
        },
      ) => send("GET", `/containers/${at(id)}/logs`, { query: q }),
      attach: (
        id: string,
        q: { stream?: boolean; stdin?: boolean; stdout?: boolean; stderr?: boolean; logs?: boolean; detachKeys?: string | undefined },
      ) => upgrade(send("POST", `/containers/${at(id)}/attach`, { query: q, upgrade: true, headers: { "Content-Type": "text/plain" } })),
      resize: (id: string, size: { h: number; w: number }) => done("POST", `/containers/${at(id)}/resize`, { query: size }),
      update: (id: string, body: Resources & { RestartPolicy?: RestartPolicy }) =>
        json<ContainerUpdateResponse>("POST", `/containers/${at(id)}/update`, { json: body }),
      changes: (id: string) => json<FilesystemChange[] | null>("GET", `/containers/${at(id)}/changes`),
      export: (id: string) => send("GET", `/containers/${at(id)}/export`),
      getArchive: (id: string, path: string) => send("GET", `/containers/${at(id)}/archive`, { query: { path } }),
      putArchive: (
        id: string,
        q: { path: string; noOverwriteDirNonDir?: boolean; copyUIDGID?: boolean },
        body: AsyncIterable<Uint8Array> | Uint8Array,
      ) =>
        done("PUT", `/containers/${at(id)}/archive`, {
          query: { ...q, noOverwriteDirNonDir: q.noOverwriteDirNonDir ? "true" : undefined, copyUIDGID: q.copyUIDGID ? "true" : undefined },
          body,
          headers: { "Content-Type": "application/x-tar" },
        }),
      statPath: async (id: string, path: string): Promise<PathStat> => {
        const response = await send("HEAD", `/containers/${at(id)}/archive`, { query: { path } });
        return JSON.parse(atob(response.headers["x-docker-container-path-stat"] ?? "")) as PathStat;
      },
      prune: (f?: Filters) => json<PruneReport>("POST", "/containers/prune", { query: { filters: filters(f) } }),
      commit: (q: {
        container: string;
        repo?: string;
        tag?: string;
        comment?: string;
        author?: string;
        changes?: string[];
        pause?: boolean;
      }) => json<{ Id: string }>("POST", "/commit", { query: { ...q, pause: q.pause === false ? "0" : undefined } }),
    },
    exec: {
      create: (container: string, body: ExecBody) => json<{ Id: string }>("POST", `/containers/${at(container)}/exec`, { json: body }),
      attach: (id: string, body: { Detach?: boolean; Tty?: boolean; ConsoleSize?: [number, number] | undefined }) =>
        upgrade(send("POST", `/exec/${at(id)}/start`, { json: body, upgrade: true })),
      start: (id: string, body: { Detach?: boolean; Tty?: boolean }) => done("POST", `/exec/${at(id)}/start`, { json: body }),
      inspect: (id: string) => json<ExecInspect>("GET", `/exec/${at(id)}/json`),
      resize: (id: string, size: { h: number; w: number }) => done("POST", `/exec/${at(id)}/resize`, { query: size }),
    },
    images: {
      list: (q: { all?: boolean; filters?: Filters | undefined; "shared-size"?: boolean; manifests?: boolean } = {}) =>
        json<ImageSummary[]>("GET", "/images/json", { query: { ...q, filters: filters(q.filters) } }),
      pull: async (
        q: { fromImage: string; tag?: string | undefined; platform?: string | undefined },
        auth?: string,
        signal?: AbortSignal,
      ) => jsonLines<ProgressMessage>(await send("POST", "/images/create", { query: q, signal, ...registryAuth(auth) })),
      import: async (
        q: { fromSrc: string; repo?: string; tag?: string; message?: string; changes?: string[]; platform?: string | undefined },
        body?: AsyncIterable<Uint8Array>,
      ) => jsonLines<ProgressMessage>(await send("POST", "/images/create", { query: q, ...(body ? { body } : {}) })),
      push: async (name: string, q: { tag?: string | undefined; platform?: string | undefined }, auth: string) =>
        jsonLines<ProgressMessage>(await send("POST", `/images/${named(name)}/push`, { query: q, ...registryAuth(auth || "e30=") })),
      inspect: (name: string, q: { platform?: string | undefined; manifests?: boolean } = {}) =>
        json<ImageInspect>("GET", `/images/${named(name)}/json`, { query: q }),
      history: (name: string, q: { platform?: string | undefined } = {}) =>
        json<ImageHistoryResponseItem[]>("GET", `/images/${named(name)}/history`, { query: q }),
      tag: (name: string, q: { repo: string; tag: string }) => done("POST", `/images/${named(name)}/tag`, { query: q }),
      remove: (name: string, q: { force?: boolean; noprune?: boolean; platforms?: string[] } = {}) =>
        json<ImageDeleteResponseItem[]>("DELETE", `/images/${named(name)}`, { query: q }),
      load: (body: AsyncIterable<Uint8Array>, q: { quiet?: boolean; platform?: string | undefined } = {}) =>
        send("POST", "/images/load", {
          query: { ...q, quiet: q.quiet ? "1" : "0" },
          body,
          headers: { "Content-Type": "application/x-tar" },
        }),
      save: (names: string[], q: { platform?: string | undefined } = {}) => send("GET", "/images/get", { query: { names, ...q } }),
      prune: (f?: Filters) => json<PruneReport>("POST", "/images/prune", { query: { filters: filters(f) } }),
      search: (q: { term: string; limit?: number | undefined; filters?: Filters | undefined }, auth?: string) =>
        json<Record<string, unknown>[]>("GET", "/images/search", { query: { ...q, filters: filters(q.filters) }, ...registryAuth(auth) }),
    },
    build: {
      /** The classic builder: a tar goes in, progress comes out. */
      classic: async (
        q: Record<string, QueryValue>,
        body: AsyncIterable<Uint8Array>,
        registryConfig: string,
        signal?: AbortSignal | undefined,
      ) =>
        jsonLines<ProgressMessage>(
          await send("POST", "/build", {
            query: q,
            body,
            signal,
            headers: { "Content-Type": "application/x-tar", ...(registryConfig ? { "X-Registry-Config": registryConfig } : {}) },
          }),
        ),
      /** A connection that speaks HTTP/2: to BuildKit's services ("/grpc"), or on which the engine calls ours ("/session"). */
      connection: (path: "/grpc" | "/session", headers: Record<string, string | readonly string[]> = {}) =>
        upgrade(send("POST", path, { upgrade: true, protocol: "h2c", headers })),
    },
    networks: {
      list: (f?: Filters) => json<NetworkInspect[]>("GET", "/networks", { query: { filters: filters(f) } }),
      create: (body: Record<string, unknown>) => json<NetworkCreateResponse>("POST", "/networks/create", { json: body }),
      inspect: (id: string, q: { verbose?: boolean; scope?: string | undefined } = {}) =>
        json<NetworkInspect>("GET", `/networks/${at(id)}`, { query: q }),
      remove: (id: string) => done("DELETE", `/networks/${at(id)}`),
      connect: (id: string, container: string, endpoint?: EndpointSettings) =>
        done("POST", `/networks/${at(id)}/connect`, { json: { Container: container, EndpointConfig: endpoint } }),
      disconnect: (id: string, container: string, force: boolean) =>
        done("POST", `/networks/${at(id)}/disconnect`, { json: { Container: container, Force: force } }),
      prune: (f?: Filters) => json<PruneReport>("POST", "/networks/prune", { query: { filters: filters(f) } }),
    },
    volumes: {
      list: (f?: Filters) => json<VolumeListResponse>("GET", "/volumes", { query: { filters: filters(f) } }),
      create: (body: VolumeCreateRequest) => json<Volume>("POST", "/volumes/create", { json: body }),
      inspect: (name: string) => json<Volume>("GET", `/volumes/${at(name)}`),
      remove: (name: string, force: boolean) => done("DELETE", `/volumes/${at(name)}`, { query: { force } }),
      prune: (f?: Filters) => json<PruneReport>("POST", "/volumes/prune", { query: { filters: filters(f) } }),
    },
    system: {
      version: () => json<SystemVersion>("GET", "/version"),
      info: () => json<SystemInfo>("GET", "/info"),
      df: (types: string[] = []) => json<DiskUsage>("GET", "/system/df", { query: { type: types } }),
      /** One JSON message a line (jsonLines, textLines), until `until` or for ever. */
      events: (q: { since?: string | undefined; until?: string | undefined; filters?: Filters | undefined }, signal?: AbortSignal) =>
        send("GET", "/events", { query: { ...q, filters: filters(q.filters) }, signal }),
      auth: (auth: AuthConfig) => json<AuthResponse>("POST", "/auth", { json: auth }),
      pruneBuildCache: (q: { all?: boolean; "keep-storage"?: number | undefined; filters?: Filters | undefined }) =>
        json<PruneReport>("POST", "/build/prune", { query: { ...q, filters: filters(q.filters) } }),
      /** Spans that a Jubako engine kept of a trace; NotFound from other engines. */
      trace: (traceId: string) => send("GET", `/jubako/trace/${traceId}`, { unversioned: true }),
    },
  };
}
