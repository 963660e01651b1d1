// What an engine without any resource answers: whether it is there, and what it is.
import { release } from "node:os";
import { BUILD_TIME, COMMIT } from "../lib/build.ts";
import type { Engine } from "./context.ts";
import type { Answer, Route } from "./route.ts";
import { API_VERSION, MIN_API_VERSION, VERSION } from "./version.ts";

const PING_HEADERS = {
  "Cache-Control": "no-cache, no-store, must-revalidate",
  Pragma: "no-cache",
  Swarm: "inactive",
};

export function pingRoutes(engine: Engine): Route[] {
  const headers = { ...PING_HEADERS, "Builder-Version": engine.config.builder?.preferred === false ? "1" : "2" };
  const ping = (): Answer => ({ text: "OK", headers });
  return [
    { method: "GET", path: "/_ping", handle: ping },
    { method: "HEAD", path: "/_ping", handle: ping },
    {
      method: "GET",
      path: "/version",
      async handle() {
        const manager = await managerVersion(engine);
        const KernelVersion = release();
        const components = [
          {
            Name: "Engine",
            Version: VERSION,
            Details: {
              ApiVersion: API_VERSION,
              Arch: "amd64",
              BuildTime: BUILD_TIME,
              Experimental: String(engine.config.experimental === true),
              GitCommit: COMMIT,
              GoVersion: `bun ${process.versions.bun ?? process.version}`,
              KernelVersion,
              MinAPIVersion: MIN_API_VERSION,
              Os: "linux",
            },
          },
          ...(manager
            ? [
                {
                  Name: engine.config.containerd ? "containerd" : "jubako-containerd",
                  Version: manager.version,
                  Details: { GitCommit: manager.revision },
                },
              ]
            : []),
          { Name: "jubako-runtime", Version: VERSION, Details: { GitCommit: COMMIT } },
        ];
        return {
          json: {
            Platform: { Name: "Jubako" },
            Components: components,
            Version: VERSION,
            ApiVersion: API_VERSION,
            MinAPIVersion: MIN_API_VERSION,
            GitCommit: COMMIT,
            GoVersion: `bun ${process.versions.bun ?? process.version}`,
            Os: "linux",
            Arch: "amd64",
            KernelVersion,
            ...(engine.config.experimental ? { Experimental: true } : {}),
            BuildTime: BUILD_TIME,
          },
        };
      },
    },
  ];
}

async function managerVersion(engine: Engine): Promise<{ version: string; revision: string } | undefined> {
  try {
    return await engine.manager.version.version({});
  } catch {
    return undefined;
  }
}
