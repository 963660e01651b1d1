// Puts the resources together to an engine. Each resource folder exports one `create…(engine)` that gives its face, and `routes(engine)`.
import { randomUUID } from "node:crypto";
import { mkdirSync } from "node:fs";
import { messageOf, unimplemented } from "../lib/errors.ts";
import type { Engine, EngineConfig, Manager } from "./context.ts";
import { pingRoutes } from "./ping.ts";
import type { Route } from "./route.ts";
import { metaValue, openStore } from "./store.ts";
import { traceRoutes } from "./trace.ts";

export interface Composition {
  engine: Engine;
  routes: Route[];
  /** Finds the containers that outlived the last engine, and undoes what it left half-done. */
  recover(): Promise<void>;
  shutdown(): Promise<void>;
}

interface ResourceModule {
  routes?(engine: Engine): Route[];
  /** Before the first request is served. */
  recover?(engine: Engine): Promise<void>;
  shutdown?(engine: Engine): Promise<void>;
  [name: string]: unknown;
}

/** Folders, and under which name the engine has their face; "" for those that only have routes. */
const RESOURCES: [folder: string, face: "events" | "io" | "images" | "networks" | "volumes" | "containers" | ""][] = [
  ["events", "events"],
  ["images", "images"],
  ["volumes", "volumes"],
  ["networks", "networks"],
  ["io", "io"],
  ["containers", "containers"],
  ["exec", ""],
  ["attach", ""],
  ["logs", ""],
  ["archive", ""],
  ["stats", ""],
  ["health", ""],
  ["system", ""],
];

/** Stands where a resource is missing: each use says so. */
function absent(name: string): never {
  const refuse = () => {
    throw unimplemented(`Jubako has no ${name} in this build`);
  };
  return new Proxy(refuse, {
    get: (_, property) => (property === "then" ? undefined : absent(`${name}.${String(property)}`)),
  }) as never;
}

async function importResource(folder: string): Promise<ResourceModule | undefined> {
  try {
    return (await import(`./${folder}/index.ts`)) as ResourceModule;
  } catch (error) {
    if (/Cannot find module/.test(String(error)) && String(error).includes(`${folder}/index.ts`)) return undefined;
    throw error;
  }
}

/** The namespace of the engine's containers in the manager, as dockerd's. */
const NAMESPACE = "moby";

/** A containerd on a socket where the settings name one, else our own in memory, served on EXEC_ROOT/containerd.sock for everyone else. */
async function openManager(config: EngineConfig, log: Engine["log"]): Promise<Manager> {
  const containerd = await import("../containerd/index.ts");
  if (config.containerd) return containerd.connectManager(config.containerd, NAMESPACE);
  const address = `${config.execRoot}/containerd.sock`;
  const manager = await containerd.createManager({
    root: `${config.dataRoot}/containerd`,
    state: `${config.execRoot}/containerd`,
    address,
    log,
    warm: [NAMESPACE],
  });
  try {
    const server = await containerd.serve(manager, address);
    const clients = containerd.inMemoryClients(manager, NAMESPACE);
    return {
      ...clients,
      async close() {
        await server.close();
        await clients.close();
        await manager.close();
      },
    };
  } catch (error) {
    await manager.close();
    throw error;
  }
}

export async function createEngine(config: EngineConfig): Promise<Composition> {
  mkdirSync(config.execRoot, { recursive: true, mode: 0o711 });
  const db = openStore(config.dataRoot);
  const ending = new AbortController();
  const engine: Engine = {
    config,
    db,
    manager: absent("manager"),
    containers: absent("containers"),
    io: absent("io"),
    images: absent("images"),
    networks: absent("networks"),
    volumes: absent("volumes"),
    events: absent("events"),
    id: metaValue(db, "id", randomUUID),
    startedAt: new Date(),
    signal: ending.signal,
    log: createLog(config.debug),
  };
  engine.manager = await openManager(config, engine.log);
  const hooks: ResourceModule[] = [];
  const routes: Route[] = [...pingRoutes(engine), ...traceRoutes(engine)];
  for (const [folder, face] of RESOURCES) {
    const module = await importResource(folder);
    if (!module) continue;
    const create = Object.entries(module).find(([name, value]) => /^create[A-Z]/.test(name) && typeof value === "function")?.[1] as
      | ((engine: Engine) => unknown)
      | undefined;
    if (create && face) (engine as unknown as Record<string, unknown>)[face] = await create(engine);
    hooks.push(module);
    if (module.routes) routes.push(...module.routes(engine));
  }
  return {
    engine,
    routes,
    async recover() {
      for (const module of hooks) await module.recover?.(engine);
    },
    async shutdown() {
      for (const module of hooks.reverse()) await module.shutdown?.(engine);
      ending.abort();
      await Promise.resolve()
        .then(() => engine.manager.close())
        .catch((error) => engine.log("error", `closing the manager: ${messageOf(error)}`));
      db.close();
    },
  };
}

const LEVELS = { debug: 0, info: 1, warn: 2, error: 3 };

/** Log lines as key=value on stderr. */
export function createLog(debug: boolean): Engine["log"] {
  const least = debug ? 0 : 1;
  return (level, message, fields) => {
    if (LEVELS[level] < least) return;
    let line = `time="${new Date().toISOString()}" level=${level} msg=${JSON.stringify(message)}`;
    for (const [key, value] of Object.entries(fields ?? {})) if (value !== undefined) line += ` ${key}=${JSON.stringify(value)}`;
    process.stderr.write(`${line}\n`);
  };
}
