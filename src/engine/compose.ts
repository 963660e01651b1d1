// Puts the resources together to an engine. Each resource folder exports one `create…(engine)` that gives its face, and `routes(engine)`.
import { randomUUID } from "node:crypto";
import { mkdirSync } from "node:fs";
import type { Socket } from "node:net";
import { messageOf, unimplemented } from "../lib/errors.ts";
import type { Engine, EngineConfig, Manager } from "./context.ts";
import { pingRoutes } from "./ping.ts";
import type { Route } from "./route.ts";
import { singleRoutes } from "./single.ts";
import { metaValue, openStore } from "./store.ts";
import { traceRoutes } from "./trace.ts";

export interface Composition {
  engine: Engine;
  routes: Route[];
  /** Serves a connection that speaks HTTP/2 (gRPC) from its first byte. */
  http2(socket: Socket): void;
  /** Finds the containers that outlived the last engine, and undoes what it left half-done. */
  recover(): Promise<void>;
  /** Stops the containers unless live-restore is set, and closes. */
  shutdown(): Promise<void>;
  /** Lets go of everything; containers stay as they are. */
  close(): Promise<void>;
}

interface ResourceModule {
  routes?(engine: Engine): Route[];
  /** Before the first request is served. */
  recover?(engine: Engine): Promise<void>;
  shutdown?(engine: Engine): Promise<void>;
}

/** Stands where a face is not made yet: a resource that reaches for another one while it is being made hears so. */
function absent(name: string): never {
  const refuse = () => {
    throw unimplemented(`${name} is used before it was made`);
  };
  return new Proxy(refuse, {
    get: (_, property) => (property === "then" ? undefined : absent(`${name}.${String(property)}`)),
  }) as never;
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
    log: createLog(config),
  };
  const close = async () => {
    ending.abort();
    await Promise.resolve()
      .then(() => engine.manager.close())
      .catch((error) => engine.log("error", `closing the manager: ${messageOf(error)}`));
    db.close();
  };
  try {
    engine.manager = await openManager(config, engine.log);
  } catch (error) {
    db.close();
    throw error;
  }
  try {
    return { engine, close, ...(await createResources(engine, close)) };
  } catch (error) {
    await close();
    throw error;
  }
}

async function createResources(
  engine: Engine,
  close: () => Promise<void>,
): Promise<Pick<Composition, "routes" | "http2" | "recover" | "shutdown">> {
  const [events, images, volumes, networks, io, containers, exec, attach, logs, archive, stats, system, build] = await Promise.all([
    import("./events/index.ts"),
    import("./images/index.ts"),
    import("./volumes/index.ts"),
    import("./networks/index.ts"),
    import("./io/index.ts"),
    import("./containers/index.ts"),
    import("./exec/index.ts"),
    import("./attach/index.ts"),
    import("./logs/index.ts"),
    import("./archive/index.ts"),
    import("./stats/index.ts"),
    import("./system/index.ts"),
    import("./build/index.ts"),
  ]);
  engine.events = events.createEvents(engine);
  engine.images = images.createImages(engine);
  engine.volumes = volumes.createVolumes(engine);
  engine.networks = networks.createNetworks(engine);
  engine.io = io.createIo(engine);
  // an engine whose own default is wrong would refuse every container
  engine.io.checkLogConfig({});
  engine.containers = containers.createContainers(engine);
  const modules: ResourceModule[] = [events, images, volumes, networks, containers, exec, attach, logs, archive, stats, system, build];
  const routes = [
    ...pingRoutes(engine),
    ...singleRoutes(),
    ...traceRoutes(engine),
    ...modules.flatMap((each) => each.routes?.(engine) ?? []),
  ];
  return {
    routes,
    http2: (socket) => build.serveGrpc(engine, socket),
    async recover() {
      for (const module of modules) await module.recover?.(engine);
    },
    async shutdown() {
      for (const module of modules.toReversed()) await module.shutdown?.(engine);
      await close();
    },
  };
}

const LEVELS = { debug: 0, info: 1, warn: 2, error: 3, fatal: 4 };

/** Log lines as key=value on stderr. */
function createLog(config: Pick<EngineConfig, "debug" | "logLevel">): Engine["log"] {
  return (level, message, fields) => {
    if (LEVELS[level] < LEVELS[config.debug ? "debug" : (config.logLevel ?? "info")]) return;
    let line = `time="${new Date().toISOString()}" level=${level} msg=${JSON.stringify(message)}`;
    for (const [key, value] of Object.entries(fields ?? {})) if (value !== undefined) line += ` ${key}=${JSON.stringify(value)}`;
    process.stderr.write(`${line}\n`);
  };
}
