// The builder's doors: POST /build and /build/prune. What the builder needs of the engine is given to it here.
import type { Builder } from "../../build/index.ts";
import { unpackInto } from "../archive/unpack.ts";
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

export function routes(engine: Engine): Route[] {
  return buildRoutes(engine, () => builderOf(engine));
}

/** Takes away what builds left that a kill ended. */
export async function recover(engine: Engine): Promise<void> {
  const { existsSync } = await import("node:fs");
  if (!existsSync(`${engine.config.dataRoot}/build`)) return;
  await (await builderOf(engine)).recover();
}
