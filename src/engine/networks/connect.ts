// Connecting a container to a network and disconnecting it, while it runs or not.
import type { EndpointSettings } from "../../api/types.ts";
import { invalidArgument, permissionDenied, unknown } from "../../lib/errors.ts";
import { namespaceOf, removeLink } from "../../network/index.ts";
import type { ContainerRecord } from "../context.ts";
import { event, gatewayEndpoint, join, leave, routeDefault } from "./attach.ts";
import { checkEndpoint, wantedSettings } from "./check.ts";
import { refreshFiles } from "./files.ts";
import { exposedPorts, planPorts, publish, unpublish } from "./publish.ts";
import type { State } from "./registry.ts";
import { modeOf, unassign } from "./settings.ts";
import type { Network, Sandbox } from "./state.ts";

/** The key in the record under which it knows the network. */
function keyOf(record: ContainerRecord, network: Network): string | undefined {
  const { id, name } = network.record;
  return Object.keys(record.networks).find((key) => key === name || key === id || record.networks[key]!.NetworkID === id);
}

function refuseShared(record: ContainerRecord, network: Network): void {
  const { mode } = modeOf(record.hostConfig.NetworkMode);
  if (mode === "container")
    throw invalidArgument("container sharing network namespace with another container or host cannot be connected to any other network");
  if (mode === "host" || network.record.driver === "host")
    throw invalidArgument("container cannot be disconnected from host network or connected to host network");
}

/** Opens the namespace of a sandbox, unless its container is just being started and it is open still; the answer lets go of it. */
function enter(sandbox: Sandbox): () => void {
  if (sandbox.namespace) return () => {};
  const opened = namespaceOf(sandbox.pid);
  sandbox.namespace = opened;
  return () => {
    opened.close();
    sandbox.namespace = undefined;
  };
}

/** After endpoints changed: default route and published ports follow the endpoint that leads outside. */
function repoint(state: State, sandbox: Sandbox, record: ContainerRecord, before: string | undefined): void {
  const outward = gatewayEndpoint(sandbox);
  if (outward?.id === before) return;
  routeDefault(sandbox);
  unpublish(state, sandbox);
  const ports = exposedPorts(record);
  if (outward?.network.bridge) sandbox.ports = publish(state, outward, planPorts(record), ports);
  record.networkSettings.Ports = ports;
}

export function connect(state: State, network: Network, ref: string, endpoint: EndpointSettings | undefined): void {
  const found = state.engine.containers.get(ref);
  refuseShared(found, network);
  const { name } = network.record;
  if (keyOf(found, network) !== undefined && (network.endpoints.has(found.id) || !state.sandboxes.has(found.id)))
    throw permissionDenied(`endpoint with name ${found.name} already exists in network ${name}`);
  if (name === "none" || Object.keys(found.networks).includes("none"))
    throw invalidArgument("container cannot be connected to multiple networks with one of the networks in private (none) mode");
  const wanted = wantedSettings(endpoint);
  checkEndpoint(network, wanted);
  state.engine.containers.update(found.id, (record) => {
    const sandbox = state.sandboxes.get(record.id);
    if (sandbox) {
      const release = enter(sandbox);
      const before = gatewayEndpoint(sandbox)?.id;
      try {
        join(state, sandbox, network, record, wanted);
        repoint(state, sandbox, record, before);
        refreshFiles(state, sandbox, record);
      } catch (error) {
        const veth = leave(sandbox, network);
        if (veth) removeLink(veth).catch(() => {});
        throw error;
      } finally {
        release();
      }
    }
    record.networks[name] = wanted;
  });
  if (state.sandboxes.has(found.id)) event(state, "connect", network, found.id);
}

/** With `force`, also what is left on the network of a container that is gone. */
export async function disconnect(state: State, network: Network, ref: string, force: boolean): Promise<void> {
  if (force) {
    const left = [...network.endpoints.values()].find(
      (e) => e.containerId === ref || e.containerName === ref || e.containerId.startsWith(ref),
    );
    if (left && !state.engine.containers.list().some((record) => record.id === left.containerId)) {
      const sandbox = state.sandboxes.get(left.containerId);
      if (sandbox) leave(sandbox, network);
      else network.endpoints.delete(left.containerId);
      if (left.veth) await removeLink(left.veth);
      return;
    }
  }
  const found = state.engine.containers.get(ref);
  refuseShared(found, network);
  const key = keyOf(found, network);
  if (key === undefined) throw unknown(`container ${found.id} is not connected to network ${network.record.name}`);
  const sandbox = state.sandboxes.get(found.id);
  let veth: string | undefined;
  state.engine.containers.update(found.id, (record) => {
    const settings = record.networks[key];
    const forget = () => {
      if (settings) unassign(settings);
      delete record.networks[key];
    };
    if (!sandbox) forget();
    else {
      const before = gatewayEndpoint(sandbox)?.id;
      const release = enter(sandbox);
      try {
        veth = leave(sandbox, network);
        forget();
        repoint(state, sandbox, record, before);
        refreshFiles(state, sandbox, record);
      } finally {
        release();
      }
    }
  });
  if (veth) await removeLink(veth);
  if (sandbox) event(state, "disconnect", network, found.id);
}
