// Networks: the resource of the Engine API, over the network layer.
//
//   check     at create: is what the container asks for possible?
//   attach    at start: namespace, links, addresses, ports, files; then the task is created in attachment.netns
//   started   the task runs: the namespace lives by it
//   detach    after the exit
//
// Networks are kept in the engine's database. Who is plugged in where is not: after a restart it is read from the namespaces of the containers
// that still run, which is the truth.
import { messageOf } from "../../lib/errors.ts";
import type { Engine, NetworksFace } from "../context.ts";
import type { Route } from "../route.ts";
import { attach, detach, started } from "./attach.ts";
import { check } from "./check.ts";
import { openState, type State } from "./registry.ts";
import { restore } from "./restore.ts";
import { networkRoutes } from "./routes.ts";
import { dnsNames } from "./sandbox.ts";

const states = new WeakMap<Engine, State>();

export function createNetworks(engine: Engine): NetworksFace {
  const state = openState(engine);
  states.set(engine, state);
  engine.signal.addEventListener("abort", () => {
    for (const sandbox of state.sandboxes.values()) sandbox.resolver?.close();
    state.pool.close();
    removeTable(state);
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

/** Where no container runs on, the table goes with the engine: tables of engines that nobody starts again would pile up. Bridges stay, as Docker's. */
function removeTable(state: State): void {
  if (!state.active || state.sandboxes.size > 0) return;
  try {
    state.firewall.remove();
  } catch (error) {
    state.engine.log("warn", `the packet filter: ${messageOf(error)}`);
  }
}

export function routes(engine: Engine): Route[] {
  return networkRoutes(states.get(engine)!);
}

/** Where nothing runs any more, nothing of ours stays in the packet filter; the next start makes it anew. */
export async function shutdown(engine: Engine): Promise<void> {
  if (engine.containers.list().some(({ state }) => state.Running)) return;
  states.get(engine)?.firewall.remove();
}
