// What the tests of images share: an engine of its own without a server, a real registry on loopback, requests as the server would make them.
import { type ChildProcess, spawn } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { Readable } from "node:stream";
import { createManager, inMemoryClients, type Manager } from "../../containerd/index.ts";
import type { ContainerRecord, Engine } from "../context.ts";
import type { Answer, Call } from "../route.ts";
import { createImages, routes } from "./index.ts";

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** Debian's docker-registry; its files are in `dir`/data. */
export async function startRegistry(dir: string): Promise<{ host: string; child: ChildProcess }> {
  const host = `127.0.0.1:${await freePort()}`;
  mkdirSync(dir, { recursive: true });
  writeFileSync(
    join(dir, "registry.yml"),
    `version: 0.1\nstorage: {filesystem: {rootdirectory: ${dir}/data}, delete: {enabled: true}}\nhttp: {addr: "${host}"}\nlog: {level: error}\n`,
  );
  const child = spawn("docker-registry", ["serve", join(dir, "registry.yml")], { stdio: "ignore" });
  for (let tries = 0; tries < 100 && !(await fetch(`http://${host}/v2/`).catch(() => undefined)); tries++) await Bun.sleep(50);
  return { host, child };
}

export interface TestEngine {
  engine: Engine;
  manager: Manager;
  ask(method: string, path: string, options?: AskOptions): Promise<Answer>;
  json<T>(method: string, path: string): Promise<T>;
  /** The lines of a progress stream. */
  lines(method: string, path: string, options?: AskOptions): Promise<Record<string, unknown>[]>;
}

export interface AskOptions {
  body?: Uint8Array;
  signal?: AbortSignal;
  headers?: Record<string, string>;
}

export async function startEngine(
  root: string,
  config: Partial<Engine["config"]> = {},
  containers: ContainerRecord[] = [],
): Promise<TestEngine> {
  const manager = await createManager({ root: join(root, "containerd"), state: join(root, "state"), shimBinary: ["/bin/false"] });
  const engine = {
    config: { dataRoot: join(root, "data"), insecureRegistries: [], registryMirrors: [], maxConcurrentDownloads: 3, ...config },
    manager: inMemoryClients(manager, "moby"),
    containers: { list: () => containers },
    events: { publish: () => {} },
    log: () => {},
    signal: new AbortController().signal,
  } as unknown as Engine;
  engine.images = createImages(engine);

  const ask: TestEngine["ask"] = async (method, path, options = {}) => {
    const url = new URL(path, "http://d");
    for (const route of routes(engine)) {
      const pattern = new RegExp(`^${route.path.replace("{name...}", "(?<name>.+)")}$`);
      const match = pattern.exec(decodeURIComponent(url.pathname));
      if (route.method !== method || !match) continue;
      const call = {
        params: { ...match.groups },
        query: url.searchParams,
        headers: options.headers ?? {},
        version: 50,
        body: Readable.from(options.body ? [options.body] : []),
        json: async () => undefined,
        signal: options.signal ?? new AbortController().signal,
        hijack: () => {
          throw new Error("no");
        },
      } as Call;
      return route.handle(call);
    }
    throw new Error(`no route for ${method} ${path}`);
  };
  return {
    engine,
    manager,
    ask,
    async json<T>(method: string, path: string) {
      return ((await ask(method, path)) as { json: T }).json;
    },
    async lines(method, path, options = {}) {
      const answer = (await ask(method, path, options)) as { stream: AsyncIterable<string> };
      let text = "";
      for await (const piece of answer.stream) text += piece;
      return text
        .split("\r\n")
        .filter(Boolean)
        .map((line) => JSON.parse(line));
    },
  };
}

export const failure = (promise: Promise<unknown>): Promise<[string, string]> =>
  promise.then(
    () => ["none", ""],
    (error: Error) => [error.name, error.message],
  );

export const statuses = (out: Record<string, unknown>[]): unknown[] => out.map((line) => line.status ?? line.stream ?? line.error);
