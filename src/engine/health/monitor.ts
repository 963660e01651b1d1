// The health monitor of containers (Config.Healthcheck).
import type { Engine } from "../context.ts";

export interface Health {
  start(id: string): void;
  stop(id: string): void;
}

export function createHealth(engine: Engine): Health {
  return {
    start(id) {
      engine.log("warn", "health checks are not part of this engine yet", { container: id });
    },
    stop() {},
  };
}
