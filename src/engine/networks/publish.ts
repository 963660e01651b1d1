// Published ports: what the container asks for, bound on the host and told to the packet filter.
import type { PortMap } from "../../api/types.ts";
import { invalidArgument, unknown } from "../../lib/errors.ts";
import { errno, type ForgetConnections, forgetConnections } from "../../linux/index.ts";
import {
  allowHairpin,
  bindPort,
  createRelay,
  formatAddress,
  hostPort,
  type Protocol,
  type PublishedPort,
  parseAddress,
} from "../../network/index.ts";
import type { ContainerRecord } from "../context.ts";
import { type State, withFirewall } from "./registry.ts";
import type { Endpoint, Held, Sandbox } from "./state.ts";

export interface PortPlan {
  /** "80/tcp". */
  key: string;
  protocol: Protocol;
  port: number;
  hostIp: string;
  /** 0: any. */
  from: number;
  to: number;
}

/** "80", "80/tcp" as port and protocol. InvalidArgument where malformed. */
export function parsePort(key: string): { protocol: Protocol; port: number } {
  const match = /^(\d{1,5})(?:\/([a-zA-Z]+))?$/.exec(key);
  const port = match ? Number(match[1]) : 0;
  if (!match || port > 65535) throw invalidArgument(`invalid port specification: "${key}"`);
  const protocol = (match[2] ?? "tcp").toLowerCase();
  if (protocol !== "tcp" && protocol !== "udp" && protocol !== "sctp") throw invalidArgument(`invalid port specification: "${key}"`);
  return { protocol, port };
}

function parseHostPort(text: string): { from: number; to: number } {
  if (text === "" || text === "0") return { from: 0, to: 0 };
  const match = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(text);
  const from = match ? Number(match[1]) : -1;
  const to = match?.[2] === undefined ? from : Number(match[2]);
  if (!match || from > 65535 || to > 65535 || to < from) throw invalidArgument(`invalid port specification: "${text}"`);
  return { from, to };
}

/** What the record asks for; fixed ports before ephemeral ones, so that these keep out of their way. */
export function planPorts(record: Pick<ContainerRecord, "config" | "hostConfig">): PortPlan[] {
  const plans: PortPlan[] = [];
  const bindings = record.hostConfig.PortBindings ?? {};
  for (const [key, list] of Object.entries(bindings)) {
    const { protocol, port } = parsePort(key);
    for (const binding of list?.length ? list : [{}]) {
      const hostIp = binding.HostIp ?? "";
      if (hostIp !== "" && !parseAddress(hostIp)) throw invalidArgument(`invalid IP address: ${hostIp}`);
      plans.push({ key: `${port}/${protocol}`, protocol, port, hostIp, ...parseHostPort(binding.HostPort ?? "") });
    }
  }
  if (record.hostConfig.PublishAllPorts) {
    for (const key of Object.keys(record.config.ExposedPorts ?? {})) {
      const { protocol, port } = parsePort(key);
      if (!plans.some((p) => p.key === `${port}/${protocol}`))
        plans.push({ key: `${port}/${protocol}`, protocol, port, hostIp: "", from: 0, to: 0 });
    }
  }
  return plans.sort((a, b) => Number(a.from === 0) - Number(b.from === 0) || a.protocol.localeCompare(b.protocol) || a.port - b.port);
}

/** Exposed but not published: null, as `inspect` shows it. */
export function exposedPorts(record: Pick<ContainerRecord, "config">): PortMap {
  const map: PortMap = {};
  for (const key of Object.keys(record.config.ExposedPorts ?? {})) {
    const { protocol, port } = parsePort(key);
    map[`${port}/${protocol}`] = null;
  }
  return map;
}

const any = (address: Uint8Array) => address.every((byte) => byte === 0);

/** Whether another container of ours has the port. */
function allocated(state: State, protocol: Protocol, address: Uint8Array, port: number): boolean {
  for (const sandbox of state.sandboxes.values())
    for (const p of sandbox.ports.published)
      if (
        p.protocol === protocol &&
        p.hostPort === port &&
        p.hostAddress.length === address.length &&
        (any(p.hostAddress) || any(address) || hostPort(p.hostAddress, port) === hostPort(address, port))
      )
        return true;
  return false;
}

/** Whether what comes by IPv6 can be passed on to a container that has only IPv4. */
const relayed = (plan: Pick<PortPlan, "protocol">, v4: Uint8Array | undefined) => plan.protocol === "tcp" && v4 !== undefined;

/** Held with the ports, so that it ends before they do. */
export function relay(listener: number, address: Uint8Array, port: number): Held {
  return createRelay(listener, address, port);
}

/** Binds and publishes all of the plan on one endpoint, or nothing. Fills `ports` with what was assigned. */
export function publish(
  state: State,
  endpoint: Endpoint,
  plans: PortPlan[],
  ports: PortMap,
): { bound: Held[]; published: PublishedPort[] } {
  const bound: Held[] = [];
  const published: PublishedPort[] = [];
  const v4 = endpoint.addresses.find((a) => a.cidr.address.length === 4)?.cidr.address;
  const v6 = endpoint.addresses.find((a) => a.cidr.address.length === 16)?.cidr.address;
  try {
    for (const plan of plans) {
      const binding = plan.hostIp || endpoint.network.bridge!.hostBinding;
      const wanted = [parseAddress(binding)!];
      if (plan.hostIp === "" && any(wanted[0]!)) wanted.push(new Uint8Array(16));
      const addresses = wanted.filter((a) => (a.length === 4 ? v4 : v6 || relayed(plan, v4)));
      if (addresses.length === 0) {
        throw invalidArgument(`host address ${binding} cannot be published: the container has no address of its family`);
      }
      const result = bindPort(plan.protocol, addresses, plan.from, plan.to);
      if ("errno" in result) {
        const where = hostPort(result.address, result.port);
        if (result.errno === errno.EADDRINUSE && plan.from === 0) throw unknown("all ports are allocated");
        if (result.errno === errno.EADDRINUSE && allocated(state, plan.protocol, result.address, result.port))
          throw unknown(`Bind for ${where} failed: port is already allocated`);
        const why =
          result.errno === errno.EADDRINUSE
            ? "address already in use"
            : result.errno === errno.EADDRNOTAVAIL
              ? "cannot assign requested address"
              : result.errno === errno.EACCES
                ? "permission denied"
                : `errno ${result.errno}`;
        throw unknown(`failed to bind host port ${where}/${plan.protocol}: ${why}`);
      }
      bound.push(result);
      for (const [i, address] of result.bound.entries()) {
        const inner = address.length === 4 ? v4! : v6;
        if (!inner) bound.push(relay(result.fds[i]!, v4!, plan.port));
        else published.push({ protocol: plan.protocol, hostAddress: address, hostPort: result.port, address: inner, port: plan.port });
        ports[plan.key] ??= [];
        ports[plan.key]!.push({ HostIp: formatAddress(address), HostPort: String(result.port) });
      }
    }
    if (published.length > 0) {
      allowHairpin(state.route, endpoint.veth);
      withFirewall(state, (firewall) => firewall.publish(published));
      forget(
        state,
        published
          .filter((p) => p.protocol === "udp")
          .map((p) => ({ protocol: UDP, port: p.hostPort, family: p.hostAddress.length === 4 ? 2 : 10 })),
      );
    }
    return { bound, published };
  } catch (error) {
    for (const b of bound.reverse()) b.close();
    const failure = error instanceof Error ? error.message : String(error);
    throw unknown(
      `driver failed programming external connectivity on endpoint ${endpoint.containerName} (${endpoint.id}): ${failure}`,
      error,
    );
  }
}

const UDP = 17;

/** UDP has no end of a connection: packets would go on to where they went before. */
function forget(state: State, what: ForgetConnections[]): void {
  if (what.length > 0) forgetConnections(what).catch((error) => state.engine.log("debug", `connection tracking: ${error}`));
}

export function unpublish(state: State, sandbox: Sandbox): void {
  const { bound, published } = sandbox.ports;
  if (published.length > 0) state.firewall.unpublish(published);
  for (const b of bound.reverse()) b.close();
  forget(
    state,
    published.filter((p) => p.protocol === "udp").map((p) => ({ protocol: UDP, address: p.address })),
  );
  sandbox.ports = { bound: [], published: [] };
}
