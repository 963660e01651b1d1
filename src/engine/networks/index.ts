// Networks: the resource of the Engine API, over the network layer.
//
//   check     at create: is what the container asks for possible?
//   attach    at start: namespace, links, addresses, ports, files; then the task is created in attachment.netns
//   started   the task runs: the namespace lives by it
//   detach    after the exit
import type { Engine, NetworksFace } from "../context.ts";
import { attach, detach, started } from "./attach.ts";
import { activate, openState } from "./registry.ts";

export function createNetworks(engine: Engine): NetworksFace {
  const state = openState(engine);
  engine.signal.addEventListener("abort", () => {
    state.pool.close();
    state.firewall.close();
    state.route.close();
  });
  return {
    async check() {},
    attach: async (record) => attach(state, record),
    started: async (id, pid) => started(state, id, pid),
    detach: async (record) => detach(state, record),
    async restore() {
      activate(state);
    },
    async renamed() {},
  };
}
