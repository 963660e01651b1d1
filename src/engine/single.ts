// What an engine that is no swarm node and has no plugins answers to those who ask; clients such as `docker inspect NAME` look everywhere.
import { invalidArgument, notFound, unavailable } from "../lib/errors.ts";
import type { Route } from "./route.ts";

const NO_MANAGER =
  'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.';

const SWARM = ["nodes", "services", "tasks", "secrets", "configs"];

export function singleRoutes(): Route[] {
  const noManager = () => {
    throw unavailable(NO_MANAGER);
  };
  return [
    { method: "GET", path: "/swarm", handle: noManager },
    { method: "GET", path: "/swarm/unlockkey", handle: noManager },
    ...["leave", "update", "unlock"].map((verb): Route => ({ method: "POST", path: `/swarm/${verb}`, handle: noManager })),
    ...SWARM.flatMap((kind): Route[] => [
      { method: "GET", path: `/${kind}`, handle: noManager },
      ...(["GET", "POST", "DELETE"] as const).map((method): Route => ({ method, path: `/${kind}/{rest...}`, handle: noManager })),
    ]),
    { method: "GET", path: "/plugins", handle: () => ({ json: [] }) },
    {
      method: "GET",
      path: "/plugins/{name...}/json",
      handle({ params }) {
        if (!params.name) throw invalidArgument("plugin name is empty");
        throw notFound(`plugin "${params.name}" not found`);
      },
    },
  ];
}
