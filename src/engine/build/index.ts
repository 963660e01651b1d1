// The builder's doors: POST /build and /build/prune. What the builder needs of the engine is given to it here.
import { existsSync, mkdirSync, rmSync } from "node:fs";
import type { Socket } from "node:net";
import type { BuildCache } from "../../api/types.ts";
import type { Builder } from "../../build/index.ts";
import { unpackInto } from "../archive/unpack.ts";
import type { BuildKit } from "../buildkit/index.ts";
import type { Engine } from "../context.ts";
import { type Lease as ImageLease, withLease } from "../images/content.ts";
import type { Route } from "../route.ts";
import { buildRoutes } from "./routes.ts";

interface Doors {
  builder: Builder;
  kit: BuildKit;
}

const doors = new WeakMap<Engine, Promise<Doors>>();

async function open(engine: Engine): Promise<Doors> {
  const [{ createBuilder }, { createBuildKit, createLocals, withLocals }] = await Promise.all([
    import("../../build/index.ts"),
    import("../buildkit/index.ts"),
  ]);
  // by this directory recover() and buildCache() see that there is something to look at
  mkdirSync(`${engine.config.dataRoot}/build`, { recursive: true, mode: 0o700 });
  const locals = createLocals(`${engine.config.dataRoot}/buildkit/contexts`, (message) => engine.log("warn", message));
  const builder = withLocals(
    createBuilder({
      manager: engine.manager,
      db: engine.db,
      dataDir: `${engine.config.dataRoot}/build`,
      runDir: `${engine.config.execRoot}/build`,
      withLease: (work) => withLease(engine.manager, (lease: ImageLease) => work(lease)),
      unpack: (directory, tar, owner) => unpackInto(directory, tar, { noOverwriteDirNonDir: false, owner }),
      log: (level, message) => engine.log(level, message),
      ...(engine.config.builder ? { collect: engine.config.builder.collect } : {}),
    }),
    locals,
  );
  return { builder, kit: createBuildKit(engine, builder, locals) };
}

/** The engine's one builder and BuildKit's doors to it, loaded when they are first needed. */
function doorsOf(engine: Engine): Promise<Doors> {
  let opened = doors.get(engine);
  if (!opened) {
    opened = open(engine);
    doors.set(engine, opened);
  }
  return opened;
}

const builderOf = async (engine: Engine): Promise<Builder> => (await doorsOf(engine)).builder;
const buildKitOf = async (engine: Engine): Promise<BuildKit> => (await doorsOf(engine)).kit;

/** Serves BuildKit's gRPC on a connection of its own. */
export function serveGrpc(engine: Engine, socket: Socket): void {
  buildKitOf(engine).then(
    (kit) => kit.serve(socket),
    () => socket.destroy(),
  );
}

export function routes(engine: Engine): Route[] {
  return [
    ...buildRoutes(
      engine,
      () => builderOf(engine),
      () => buildKitOf(engine),
    ),
    { method: "POST", path: "/grpc", untraced: true, handle: async (call) => (await buildKitOf(engine)).grpc(call) },
    { method: "POST", path: "/session", untraced: true, handle: async (call) => (await buildKitOf(engine)).session(call) },
  ];
}

/** Takes away what builds left that a kill ended. */
export async function recover(engine: Engine): Promise<void> {
  rmSync(`${engine.config.execRoot}/buildkit`, { recursive: true, force: true });
  rmSync(`${engine.config.dataRoot}/buildkit/layouts`, { recursive: true, force: true });
  if (!existsSync(`${engine.config.dataRoot}/build`)) return;
  await (await builderOf(engine)).recover();
}

/** What the build cache keeps, for `docker system df`. */
export async function buildCache(engine: Engine): Promise<BuildCache[]> {
  if (!existsSync(`${engine.config.dataRoot}/build`)) return [];
  const { cacheItems } = await import("./prune.ts");
  return cacheItems(await builderOf(engine));
}
