// Networks: the resource of the Engine API, over the network layer.
//
//   check     at create: is what the container asks for possible?
//   attach    at start: namespace, links, addresses, ports, files; then the task is created in attachment.netns
//   started   the task runs: the namespace lives by it
//   detach    after the exit
//
// Networks are kept in the engine's database. Who is plugged in where is not: after a restart it is read from the namespaces of the containers
// that still run, which is the truth.
import type { Engine, NetworksFace } from "../context.ts";
import type { Route } from "../route.ts";
import { attach, detach, dnsNames, started } from "./attach.ts";
import { check } from "./check.ts";
import { openState, type State } from "./registry.ts";
import { restore } from "./restore.ts";
import { networkRoutes } from "./routes.ts";

const states = new WeakMap<Engine, State>();

export function createNetworks(engine: Engine): NetworksFace {
  const state = openState(engine);
  states.set(engine, state);
  engine.signal.addEventListener("abort", () => {
    for (const sandbox of state.sandboxes.values()) sandbox.resolver?.close();
    state.pool.close();
    state.firewall.close();
    state.route.close();
  });
  return {
    check: async (record, endpoints) => check(state, record, endpoints),
    attach: async (record) => attach(state, record),
    started: async (id, pid) => started(state, id, pid),
    detach: async (record) => detach(state, record),
    restore: async (running) => restore(state, running),
    async renamed(record) {
      for (const endpoint of state.sandboxes.get(record.id)?.endpoints ?? []) {
        endpoint.containerName = record.name;
        const settings = record.networks[endpoint.network.record.name];
        if (endpoint.names.length === 0 || !settings) continue;
        endpoint.names = dnsNames(record, settings);
        settings.DNSNames = endpoint.names;
      }
    },
  };
}

export function routes(engine: Engine): Route[] {
  return networkRoutes(states.get(engine)!);
}
