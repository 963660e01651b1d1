// At engine start: what should be on the host comes there, containers that outlived the last engine are found again through their namespaces, and
// everything else that is ours goes. Doing it twice changes nothing.
import { readdirSync, rmSync } from "node:fs";
import { messageOf } from "../../lib/errors.ts";
import { type Link, listAddresses, listLinks } from "../../linux/index.ts";
import { bindPort, contains, namespaceOf, type PublishedPort, parseAddress, removeLink } from "../../network/index.ts";
import type { ContainerRecord } from "../context.ts";
import { sandboxKey, started } from "./attach.ts";
import { refreshFiles } from "./files.ts";
import { parsePort, relay } from "./publish.ts";
import { activate, findNetwork, type State } from "./registry.ts";
import { dnsNames, newEndpoint, newSandbox } from "./sandbox.ts";
import { modeFor, modeOf } from "./settings.ts";
import { type Held, hasLinks, type Network, type Sandbox } from "./state.ts";

/** Where an interface of the container belongs: to the network of ours that has its address. */
function networkOfAddress(state: State, address: Uint8Array): Network | undefined {
  for (const network of state.networks.values()) if (network.subnets.some((s) => contains(s.cidr, address))) return network;
  return undefined;
}

/** The sandbox of a running container, put together from what its namespace holds and what its record says. */
function adopt(state: State, record: ContainerRecord, pid: number, hostLinks: Map<number, Link>): Sandbox {
  const sandbox = newSandbox(record, record.networkSettings?.SandboxID);
  sandbox.pid = pid;
  const { mode, name } = modeFor(record, state.engine.config.bridge !== "none");
  if (mode === "host" || mode === "none") {
    const network = findNetwork(state, name);
    const settings = record.networks[network.record.name];
    sandbox.endpoints.push(newEndpoint(network, record, settings, settings?.EndpointID));
    return sandbox;
  }
  const inside = namespaceOf(pid);
  try {
    const links = listLinks(inside.route);
    const addresses = listAddresses(inside.route);
    for (const link of links) {
      if (link.kind !== "veth" && link.kind !== "macvlan" && link.kind !== "ipvlan") continue;
      const own = addresses.filter((a) => a.index === link.index && !(a.local.length === 16 && a.local[0] === 0xfe));
      const network = own.map((a) => networkOfAddress(state, a.local)).find((n) => n !== undefined);
      const outer = link.peer === undefined ? undefined : hostLinks.get(link.peer);
      const ours = link.kind === "veth" ? network?.bridge && outer?.master === network.bridge.index : network?.parent?.kind === link.kind;
      if (!network || !ours) continue;
      const settings = record.networks[network.record.name];
      const e = newEndpoint(network, record, settings, settings?.EndpointID);
      Object.assign(e, {
        veth: link.kind === "veth" ? outer!.name : "",
        interface: link.name,
        index: link.index,
        mac: link.address?.slice(),
      });
      if (!network.predefined) e.names = dnsNames(record, settings ?? {});
      for (const a of own) {
        const subnet = network.subnets.find((s) => contains(s.cidr, a.local));
        if (!subnet) continue;
        subnet.allocator.take(a.local.slice());
        e.addresses.push({ cidr: { address: a.local.slice(), prefix: a.prefix }, subnet });
      }
      sandbox.endpoints.push(e);
    }
    // in the order they were plugged in
    sandbox.endpoints.sort((a, b) => a.index - b.index);
  } finally {
    inside.close();
  }
  return sandbox;
}

/** Binds the published ports again, as the record has them. A port that somebody took meanwhile stays published all the same. */
function rebind(state: State, record: ContainerRecord, sandbox: Sandbox): void {
  const bound: Held[] = [];
  const published: PublishedPort[] = [];
  const inner = (length: number) =>
    sandbox.endpoints
      .filter((e) => !e.network.record.internal)
      .flatMap((e) => e.addresses)
      .find((a) => a.cidr.address.length === length)?.cidr.address;
  for (const [key, bindings] of Object.entries(record.networkSettings?.Ports ?? {})) {
    const { protocol, port } = parsePort(key);
    for (const binding of bindings ?? []) {
      const hostAddress = parseAddress(binding.HostIp ?? "");
      const hostPort = Number(binding.HostPort);
      if (!hostAddress || !(hostPort > 0)) continue;
      const address = inner(hostAddress.length);
      const result = bindPort(protocol, [hostAddress], hostPort);
      if ("errno" in result)
        state.engine.log("warn", `port ${binding.HostIp}:${hostPort} of ${record.name} is held by another program too`);
      else bound.push(result);
      if (address) published.push({ protocol, hostAddress, hostPort, address, port });
      else if (!("errno" in result) && inner(4)) bound.push(relay(result.fds[0]!, inner(4)!, port));
    }
  }
  sandbox.ports = { bound, published };
}

/** Removes links of ours that no container and no network claims, and the marks of sandboxes that are gone. */
function sweep(state: State): void {
  const bridges = new Set([...state.networks.values()].flatMap((n) => (n.bridge ? [n.bridge.index] : [])));
  const parents = new Set([...state.networks.values()].map((n) => n.parent?.name));
  const claimed = new Set([...state.sandboxes.values()].flatMap((s) => s.endpoints.map((e) => e.veth)));
  for (const link of listLinks(state.route)) {
    const plugged = link.kind === "veth" && link.master !== undefined && bridges.has(link.master) && /^veth[0-9a-f]{7}$/.test(link.name);
    const orphanPair = plugged && !claimed.has(link.name);
    const made = link.alias === state.alias && ["bridge", "dummy", "vlan"].includes(link.kind ?? "");
    const orphanLink = made && !bridges.has(link.index) && !parents.has(link.name);
    if (!orphanPair && !orphanLink) continue;
    state.engine.log("info", `removing the orphaned link ${link.name}`);
    removeLink(link.name).catch((error) => state.engine.log("warn", `removing ${link.name}: ${messageOf(error)}`));
  }
  const directory = `${state.engine.config.execRoot}/netns`;
  const keys = new Set([...state.sandboxes.values()].map((s) => sandboxKey(state, s)));
  try {
    for (const name of readdirSync(directory)) if (!keys.has(`${directory}/${name}`)) rmSync(`${directory}/${name}`, { force: true });
  } catch {
    // no sandbox was ever marked
  }
}

export function restore(state: State, running: ContainerRecord[]): void {
  activate(state);
  const hostLinks = new Map(listLinks(state.route).map((link) => [link.index, link]));
  for (const record of running) {
    if (state.sandboxes.has(record.id) || modeOf(record.hostConfig.NetworkMode).mode === "container") continue;
    const pid = state.engine.containers.pid(record.id);
    if (pid === 0) continue;
    try {
      const sandbox = adopt(state, record, pid, hostLinks);
      for (const e of sandbox.endpoints) e.network.endpoints.set(record.id, e);
      state.sandboxes.set(record.id, sandbox);
      rebind(state, record, sandbox);
    } catch (error) {
      state.engine.log("error", `the network of container ${record.name}: ${messageOf(error)}`);
    }
  }
  // once more, now with the ports
  activate(state);
  for (const record of running) {
    const sandbox = state.sandboxes.get(record.id);
    if (!sandbox) continue;
    try {
      started(state, record.id, sandbox.pid);
      if (!sandbox.endpoints.some((e) => hasLinks(e.network) && !e.network.predefined)) continue;
      sandbox.namespace = namespaceOf(sandbox.pid);
      refreshFiles(state, sandbox, record);
    } catch (error) {
      state.engine.log("error", `the resolver of container ${record.name}: ${messageOf(error)}`);
    } finally {
      sandbox.namespace?.close();
      sandbox.namespace = undefined;
    }
  }
  sweep(state);
}
