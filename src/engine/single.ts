// What an engine that is no swarm node and has no plugins answers to those who ask; clients such as `docker inspect NAME` look everywhere.
import { invalidArgument, notFound, unavailable } from "../lib/errors.ts";
import type { Route } from "./route.ts";

const NO_MANAGER =
  'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.';

const SWARM_PATHS = [
  "/swarm",
  "/nodes",
  "/nodes/{id}",
  "/services",
  "/services/{id}",
  "/tasks",
  "/tasks/{id}",
  "/secrets",
  "/secrets/{id}",
  "/configs",
  "/configs/{id}",
];

export function singleRoutes(): Route[] {
  const noManager = () => {
    throw unavailable(NO_MANAGER);
  };
  return [
    ...SWARM_PATHS.map((path): Route => ({ method: "GET", path, handle: noManager })),
    { method: "POST", path: "/swarm/leave", handle: noManager },
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
