// Giving a container its place in the network, and taking it away. Everything here is synchronous: no other request sees half of it.
import { mkdirSync, rmSync, symlinkSync } from "node:fs";
import type { EndpointSettings } from "../../api/types.ts";
import { conflict, Failure, failedPrecondition, invalidArgument, messageOf, permissionDenied } from "../../lib/errors.ts";
import { listLinks } from "../../linux/index.ts";
import {
  bridgedPacketsAreFiltered,
  contains,
  findLink,
  macOf,
  parseAddress,
  parseMac,
  plug,
  plugChild,
  removeLink,
  setDefaultRoutes,
  unplugChild,
} from "../../network/index.ts";
import { span } from "../../trace/index.ts";
import type { ContainerRecord, NetworkAttachment } from "../context.ts";
import { paths, resolve, writeFiles } from "./files.ts";
import { exposedPorts, planPorts, publish, unpublish } from "./publish.ts";
import { activate, allocate, errno, findNetwork, isErrno, realize, type State } from "./registry.ts";
import { dnsNames, newEndpoint, newSandbox } from "./sandbox.ts";
import { assign, macOfEndpoint, modeFor, modeOf, unassign, wantedMac } from "./settings.ts";
import { type Endpoint, gatewayOf, hasLinks, leadsOutside, type Network, type Sandbox } from "./state.ts";

/** Endpoint option: what the container's end is called. */
export const IFNAME = "com.docker.network.endpoint.ifname";

/** eth0, eth1, …: the first name that is not taken, also by links that the container made itself. */
function freeInterface(sandbox: Sandbox): string {
  const taken = new Set(sandbox.endpoints.map((e) => e.interface));
  if (sandbox.pid > 0 && sandbox.namespace) for (const link of listLinks(sandbox.namespace.route)) taken.add(link.name);
  let n = 0;
  while (taken.has(`eth${n}`)) n++;
  return `eth${n}`;
}

/** Takes addresses for an endpoint; nothing is on the host yet. */
function reserve(network: Network, record: ContainerRecord, settings: EndpointSettings, sandbox: Sandbox): Endpoint {
  const endpoint = newEndpoint(network, record, settings);
  const { id } = endpoint;
  if (!hasLinks(network)) return endpoint;
  if (network.bridge) endpoint.veth = `veth${id.slice(0, 7)}`;
  endpoint.interface = settings.DriverOpts?.[IFNAME] || freeInterface(sandbox);
  if (!network.predefined) endpoint.names = dnsNames(record, settings);
  const mac = wantedMac(settings);
  try {
    for (const length of [4, 16]) {
      const offered = network.subnets.filter((s) => s.gateway.length === length);
      if (offered.length === 0) continue;
      const wanted = length === 4 ? settings.IPAMConfig?.IPv4Address : settings.IPAMConfig?.IPv6Address;
      const at = wanted ? parseAddress(wanted) : undefined;
      const subnet = at ? offered.find((s) => contains(s.cidr, at)) : offered[0];
      if (!subnet) throw invalidArgument(`no configured subnet contains IP address ${wanted}`);
      const address = allocate(network, subnet, wanted);
      endpoint.addresses.push({ cidr: { address, prefix: subnet.cidr.prefix }, subnet });
    }
    const v4 = endpoint.addresses.find((a) => a.cidr.address.length === 4)?.cidr.address;
    // On ipvlan all have the parent's. On macvlan no two may have the same, not even while a namespace is on its way out.
    const own = network.parent?.kind !== "ipvlan";
    if (own) endpoint.mac = mac ? parseMac(mac) : v4 && !network.parent ? macOf(v4) : macOfEndpoint(id);
    if (own && !endpoint.mac) throw invalidArgument(`invalid MAC address: ${mac}`);
  } catch (error) {
    releaseAddresses(endpoint);
    throw error;
  }
  return endpoint;
}

function releaseAddresses(endpoint: Endpoint): void {
  for (const { cidr, subnet } of endpoint.addresses) subnet.allocator.release(cidr.address);
  endpoint.addresses = [];
}

/** Adds an endpoint to a sandbox whose namespace is open. */
export function join(state: State, sandbox: Sandbox, network: Network, record: ContainerRecord, settings: EndpointSettings): Endpoint {
  if (network.record.configOnly) throw permissionDenied("cannot create endpoint on configuration-only network");
  const endpoint = reserve(network, record, settings, sandbox);
  const { bridge, parent } = network;
  try {
    const inside = sandbox.namespace;
    if (!inside && hasLinks(network)) throw failedPrecondition(`container ${record.id} has no open network namespace`);
    if (parent && inside) {
      const { interface: name, mac } = endpoint;
      const addresses = endpoint.addresses.map((a) => a.cidr);
      const link = () => {
        endpoint.index = plugChild(state.route, inside, { ...parent, parent: parent.name, name, mac, addresses });
      };
      try {
        link();
      } catch (error) {
        // a parent that is ours was removed behind our back
        if (!isErrno(error, errno.ENODEV)) throw error;
        realize(state, network);
        link();
      }
    }
    if (bridge && inside) {
      const link = () => {
        endpoint.index = plug(state.route, inside, {
          veth: endpoint.veth,
          bridge: bridge.index,
          mtu: bridge.mtu,
          name: endpoint.interface,
          mac: endpoint.mac!,
          addresses: endpoint.addresses.map((a) => a.cidr),
          isolated: !bridge.icc && !bridgedPacketsAreFiltered(),
        });
      };
      try {
        link();
      } catch (error) {
        // somebody removed the bridge behind our back
        if (!isErrno(error, errno.ENODEV, errno.EINVAL)) throw error;
        realize(state, network);
        link();
      }
    }
  } catch (error) {
    releaseAddresses(endpoint);
    throw error;
  }
  network.endpoints.set(record.id, endpoint);
  sandbox.endpoints.push(endpoint);
  assign(settings, endpoint);
  return endpoint;
}

/** The endpoint whose gateways the container uses: highest priority, internal networks never, then by name. */
export function gatewayEndpoint(sandbox: Sandbox): Endpoint | undefined {
  return sandbox.endpoints
    .filter((e) => leadsOutside(e.network))
    .sort((a, b) => b.gatewayPriority - a.gatewayPriority || (a.network.record.name < b.network.record.name ? -1 : 1))[0];
}

export function routeDefault(sandbox: Sandbox): void {
  const endpoint = gatewayEndpoint(sandbox);
  if (!endpoint || !sandbox.namespace) return;
  setDefaultRoutes(
    sandbox.namespace,
    endpoint.addresses.map((a) => ({
      v6: a.cidr.address.length === 16,
      gateway: gatewayOf(endpoint.network, a.subnet),
      index: endpoint.index,
    })),
  );
}

/** Where `inspect` says the namespace is; a link to the process' own once it runs. */
export const sandboxKey = (state: State, sandbox: Sandbox) => `${state.engine.config.execRoot}/netns/${sandbox.id.slice(0, 12)}`;

export function event(state: State, action: "connect" | "disconnect", network: Network, containerId: string): void {
  state.engine.events.publish("network", action, network.record.id, {
    container: containerId,
    name: network.record.name,
    type: network.record.driver,
  });
}

function attachShared(state: State, record: ContainerRecord, ref: string): NetworkAttachment {
  const other = state.engine.containers.get(ref);
  const pid = state.engine.containers.pid(other.id);
  if (pid === 0) throw conflict(`cannot join network of a non running container: ${other.id}`);
  if (other.id === record.id) throw invalidArgument("cannot join own network");
  const inner = modeOf(other.hostConfig.NetworkMode);
  const files = inner.mode === "container" ? attachShared(state, record, inner.name) : paths(other);
  return {
    netns: `/proc/${pid}/ns/net`,
    mode: "container",
    hostsPath: files.hostsPath,
    resolvConfPath: files.resolvConfPath,
    hostnamePath: files.hostnamePath,
  };
}

/** In dockerd's words. What is no failure of ours but the kernel's answers 500, as a resource that could not be had. */
function setUpFailure(error: unknown): Failure {
  const kind = error instanceof Failure && error.kind !== "Unknown" ? error.kind : "ResourceExhausted";
  return new Failure(kind, `failed to set up container networking: ${messageOf(error)}`, { cause: error });
}

/** All or nothing: a container that can't have all it asks for holds nothing afterwards. */
export function attach(state: State, record: ContainerRecord): NetworkAttachment {
  try {
    return setUp(state, record);
  } catch (error) {
    throw setUpFailure(error);
  }
}

function setUp(state: State, record: ContainerRecord): NetworkAttachment {
  if (!state.active) activate(state);
  const { mode, name } = modeFor(record, state.engine.config.bridge !== "none");
  if (mode === "container") return attachShared(state, record, name);
  if (state.sandboxes.has(record.id)) detach(state, record);

  const sandbox = newSandbox(record);
  if (mode !== "host") sandbox.namespace = span("network namespace", {}, state.pool.take);
  try {
    // the network of the mode becomes eth0, the others follow by name
    const names = mode === "none" ? [name] : Object.keys(record.networks);
    const first = names.find((n) => findNetwork(state, n) === findNetwork(state, name)) ?? name;
    record.networks[first] ??= {};
    for (const n of [first, ...names.filter((n) => n !== first).sort()])
      span("endpoint", { network: n }, () => join(state, sandbox, findNetwork(state, n), record, record.networks[n]!));
    routeDefault(sandbox);
    const ports = exposedPorts(record);
    const outward = gatewayEndpoint(sandbox);
    const plans = planPorts(record);
    if (outward?.network.bridge && plans.length > 0) sandbox.ports = span("publish ports", {}, () => publish(state, outward, plans, ports));
    span("hosts, resolv.conf, hostname", {}, () => writeFiles(state, sandbox, record, mode));
    span("resolver", {}, () => resolve(state, sandbox));
    state.sandboxes.set(record.id, sandbox);
    record.networkSettings = {
      SandboxID: sandbox.id,
      SandboxKey: mode === "host" ? "/proc/1/ns/net" : sandboxKey(state, sandbox),
      Ports: mode === "bridge" ? ports : {},
    };
  } catch (error) {
    state.sandboxes.delete(record.id);
    dissolve(state, sandbox);
    for (const settings of Object.values(record.networks)) unassign(settings);
    throw error;
  }
  for (const endpoint of sandbox.endpoints) event(state, "connect", endpoint.network, record.id);
  const { namespace } = sandbox;
  return { netns: namespace && `/proc/${process.pid}/fd/${namespace.fd}`, mode, ...paths(record) };
}

/**
 * Takes one endpoint out of a sandbox; answers the host's end of its pair, which is still there. A link without such an end goes here, as far as the
 * namespace is open.
 */
export function leave(sandbox: Sandbox, network: Network): string | undefined {
  const at = sandbox.endpoints.findIndex((e) => e.network === network);
  const [endpoint] = at < 0 ? [] : sandbox.endpoints.splice(at, 1);
  if (!endpoint) return undefined;
  network.endpoints.delete(sandbox.containerId);
  releaseAddresses(endpoint);
  if (network.parent && sandbox.namespace) unplugChild(sandbox.namespace, endpoint.index);
  return endpoint.veth || undefined;
}

/** Takes everything of a sandbox away. The pairs go with the namespace; where others still live in it, or it is slow to go, by hand. */
function dissolve(state: State, sandbox: Sandbox): void {
  sandbox.resolver?.close();
  unpublish(state, sandbox);
  sandbox.namespace?.close();
  sandbox.namespace = undefined;
  for (const endpoint of sandbox.endpoints) {
    endpoint.network.endpoints.delete(sandbox.containerId);
    releaseAddresses(endpoint);
    if (endpoint.veth) reap(state, endpoint.veth);
  }
  sandbox.endpoints = [];
}

const REAP_AFTER = 500;

/** A pair that outlives its container (somebody else holds the namespace) is removed by hand. */
function reap(state: State, veth: string): void {
  setTimeout(() => {
    if (!state.engine.signal.aborted && findLink(state.route, veth))
      removeLink(veth).catch((error) => state.engine.log("warn", `removing ${veth}: ${error}`));
  }, REAP_AFTER).unref();
}

export function started(state: State, id: string, pid: number): void {
  const sandbox = state.sandboxes.get(id);
  if (!sandbox) return;
  sandbox.pid = pid;
  sandbox.namespace?.close();
  sandbox.namespace = undefined;
  if (sandbox.endpoints.some((e) => e.network.record.driver !== "host")) {
    const key = sandboxKey(state, sandbox);
    try {
      symlinkSync(`/proc/${pid}/ns/net`, key);
    } catch {
      mkdirSync(`${state.engine.config.execRoot}/netns`, { recursive: true, mode: 0o711 });
      rmSync(key, { force: true });
      symlinkSync(`/proc/${pid}/ns/net`, key);
    }
  }
}

export function detach(state: State, record: ContainerRecord): void {
  const sandbox = state.sandboxes.get(record.id);
  if (sandbox) {
    state.sandboxes.delete(record.id);
    const networks = sandbox.endpoints.map((e) => e.network);
    if (sandbox.pid) rmSync(sandboxKey(state, sandbox), { force: true });
    dissolve(state, sandbox);
    for (const network of networks) event(state, "disconnect", network, record.id);
  }
  for (const settings of Object.values(record.networks)) unassign(settings);
  record.networkSettings = { SandboxID: "", SandboxKey: "", Ports: {} };
}
