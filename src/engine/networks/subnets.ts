// Which subnets networks get: chosen where the user names none, and those of the default bridge, which the engine's settings name.
import type { IPAMConfig } from "../../api/types.ts";
import { invalidArgument } from "../../lib/errors.ts";
import { listAddresses, listRoutes } from "../../linux/index.ts";
import {
  type Cidr,
  chooseSubnet,
  contains,
  DEFAULT_POOLS,
  findLink,
  formatAddress,
  formatCidr,
  fromNumber,
  networkOf,
  parseCidr,
  type SubnetPool,
  toNumber,
} from "../../network/index.ts";
import type { State } from "./registry.ts";
import { type NetworkRecord, OPTION } from "./state.ts";

/** Subnets that a new one must not overlap with: the host's addresses and routes (VPNs, other engines), and our own networks'. */
export function takenSubnets(state: State, except?: string): Cidr[] {
  const skip = except === undefined ? undefined : findLink(state.route, except)?.index;
  const taken: Cidr[] = [];
  for (const route of listRoutes(state.route)) {
    if (route.destination && route.prefix > 0 && route.table !== 255 && (skip === undefined || route.index !== skip))
      taken.push({ address: route.destination, prefix: route.prefix });
  }
  for (const a of listAddresses(state.route)) if (a.index !== skip) taken.push({ address: a.local, prefix: a.prefix });
  for (const network of state.networks.values()) for (const subnet of network.subnets) taken.push(subnet.cidr);
  return taken;
}

/** The first host address of a subnet. */
export function firstHost(cidr: Cidr): Uint8Array {
  return fromNumber(toNumber(networkOf(cidr)) + 1n, cidr.address.length);
}

const withGateway = (address: Cidr): { Subnet: string; Gateway: string } => ({
  Subnet: formatCidr({ address: networkOf(address), prefix: address.prefix }),
  Gateway: formatAddress(address.address),
});

/** fdXX:XXXX:XXXX::/48 of this engine, cut into /64s, as RFC 4193 wants it. */
function uniqueLocal(state: State): SubnetPool {
  const address = new Uint8Array(16);
  const digits = state.engine.id.replace(/[^0-9a-f]/g, "");
  address.set([0xfd, ...Buffer.from(digits.padEnd(10, "0").slice(0, 10), "hex")]);
  return { base: { address, prefix: 48 }, size: 64 };
}

/** A free subnet for addresses of so many bytes, from the engine's pools, with the gateway as its first host. */
export function freeSubnet(state: State, length: 4 | 16): { Subnet: string; Gateway: string } {
  const said = (state.engine.config.addressPools ?? [])
    .map(({ base, size }) => ({ base: parseCidr(base)!, size }))
    .filter(({ base }) => base.address.length === length);
  const pools = said.length > 0 ? said : length === 4 ? DEFAULT_POOLS : [uniqueLocal(state)];
  const subnet = chooseSubnet(pools, takenSubnets(state));
  return withGateway({ address: firstHost(subnet), prefix: subnet.prefix });
}

/** What it had under its name, as long as that is the default bridge still. */
function kept(state: State, before: NetworkRecord | undefined, length: number): { Subnet: string; Gateway: string } | undefined {
  if (before?.options[OPTION.name] !== state.engine.config.bridge) return undefined;
  const found = before.ipam.config.find(({ Subnet }) => parseCidr(Subnet ?? "")?.address.length === length);
  return found?.Subnet && found.Gateway ? { Subnet: found.Subnet, Gateway: found.Gateway } : undefined;
}

/** The default bridge's subnet: what the settings say, else what it had, else what an existing link of its name has, else a free one. */
function defaultSubnet(state: State, before: NetworkRecord | undefined): IPAMConfig {
  const { bridge, bip } = state.engine.config;
  if (bip) {
    const address = parseCidr(bip);
    if (address?.address.length !== 4) throw invalidArgument(`invalid CIDR address: ${bip}`);
    return withGateway(address);
  }
  const known = kept(state, before, 4);
  if (known) return known;
  const link = findLink(state.route, bridge);
  const present = link && listAddresses(state.route).find((a) => a.index === link.index && a.local.length === 4);
  return present ? withGateway({ address: present.local, prefix: present.prefix }) : freeSubnet(state, 4);
}

/** The same for IPv6. */
function defaultSubnetV6(state: State, before: NetworkRecord | undefined): IPAMConfig {
  const { fixedCidrV6 } = state.engine.config.defaultNetwork;
  if (!fixedCidrV6) return kept(state, before, 16) ?? freeSubnet(state, 16);
  const subnet = parseCidr(fixedCidrV6)!;
  return withGateway({ address: firstHost(subnet), prefix: subnet.prefix });
}

/** What the engine's settings make of the default bridge; `before`: as it was kept. */
export function defaultBridge(state: State, before: NetworkRecord | undefined): Pick<NetworkRecord, "enableIPv6" | "ipam" | "options"> {
  const { bridge, defaultNetwork } = state.engine.config;
  const { ipv6, fixedCidr, mtu, icc, masquerade, hostBinding } = defaultNetwork;
  const v4 = defaultSubnet(state, before);
  if (fixedCidr) {
    if (!contains(parseCidr(v4.Subnet!)!, parseCidr(fixedCidr)!.address))
      throw invalidArgument(`--fixed-cidr ${fixedCidr} is not within the default bridge's subnet ${v4.Subnet}`);
    v4.IPRange = fixedCidr;
  }
  return {
    enableIPv6: ipv6,
    ipam: { driver: "default", options: null, config: ipv6 ? [v4, defaultSubnetV6(state, before)] : [v4] },
    options: {
      [OPTION.defaultBridge]: "true",
      [OPTION.icc]: String(icc),
      [OPTION.masquerade]: String(masquerade),
      [OPTION.hostBinding]: hostBinding,
      [OPTION.name]: bridge,
      [OPTION.mtu]: String(mtu),
    },
  };
}
