// The builder's doors: POST /build and /build/prune. What the builder needs of the engine is given to it here.
import { existsSync } from "node:fs";
import type { Socket } from "node:net";
import type { BuildCache } from "../../api/types.ts";
import type { Builder } from "../../build/index.ts";
import { unpackInto } from "../archive/unpack.ts";
import type { BuildKit } from "../buildkit/index.ts";
import type { Engine } from "../context.ts";
import { type Lease as ImageLease, withLease } from "../images/content.ts";
import type { Route } from "../route.ts";
import { buildRoutes } from "./routes.ts";

const builders = new WeakMap<Engine, Promise<Builder>>();

/** The engine's one builder, loaded when it is first needed. */
function builderOf(engine: Engine): Promise<Builder> {
  let builder = builders.get(engine);
  if (!builder) {
    builder = import("../../build/index.ts").then(({ createBuilder }) =>
      createBuilder({
        manager: engine.manager,
        db: engine.db,
        dataDir: `${engine.config.dataRoot}/build`,
        runDir: `${engine.config.execRoot}/build`,
        withLease: (work) => withLease(engine.manager, (lease: ImageLease) => work(lease)),
        unpack: (directory, tar, owner) => unpackInto(directory, tar, { noOverwriteDirNonDir: false, owner }),
        log: (level, message) => engine.log(level, message),
      }),
    );
    builders.set(engine, builder);
  }
  return builder;
}

const kits = new WeakMap<Engine, Promise<BuildKit>>();

/** The engine's BuildKit doors, loaded when they are first knocked at. */
export function buildKitOf(engine: Engine): Promise<BuildKit> {
  let kit = kits.get(engine);
  if (!kit) {
    kit = import("../buildkit/index.ts").then(({ createBuildKit }) => createBuildKit(engine, () => builderOf(engine)));
    kits.set(engine, kit);
  }
  return kit;
}

/** Serves BuildKit's gRPC on a connection of its own. */
export function serveGrpc(engine: Engine, socket: Socket): void {
  buildKitOf(engine).then(
    (kit) => kit.serve(socket),
    () => socket.destroy(),
  );
}

export function routes(engine: Engine): Route[] {
  return [
    ...buildRoutes(engine, () => builderOf(engine)),
    { method: "POST", path: "/grpc", handle: async (call) => (await buildKitOf(engine)).grpc(call) },
    { method: "POST", path: "/session", handle: async (call) => (await buildKitOf(engine)).session(call) },
  ];
}

/** Takes away what builds left that a kill ended. */
export async function recover(engine: Engine): Promise<void> {
  if (!existsSync(`${engine.config.dataRoot}/build`)) return;
  await (await builderOf(engine)).recover();
}

/** What the build cache keeps, for `docker system df`. */
export async function buildCache(engine: Engine): Promise<BuildCache[]> {
  if (!existsSync(`${engine.config.dataRoot}/build`)) return [];
  const { cacheItems } = await import("./prune.ts");
  return cacheItems(await builderOf(engine));
}
