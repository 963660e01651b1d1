// A network as the API shows it.
import type { EndpointResource, Network as NetworkJson } from "../../api/types.ts";
import { formatCidr, formatMac } from "../../network/index.ts";
import { hasLinks, type Network } from "./state.ts";

export interface SubnetUse {
  IPsInUse: number;
  DynamicIPsAvailable: number;
}

export type InspectJson = NetworkJson & {
  Containers: Record<string, EndpointResource>;
  Status?: { IPAM: { Subnets: Record<string, SubnetUse> } };
};

function containers(network: Network): Record<string, EndpointResource> {
  const out: Record<string, EndpointResource> = {};
  for (const endpoint of network.endpoints.values()) {
    const text = (length: number) => {
      const found = endpoint.addresses.find((a) => a.cidr.address.length === length);
      return found ? formatCidr(found.cidr) : "";
    };
    out[endpoint.containerId] = {
      Name: endpoint.containerName,
      EndpointID: endpoint.id,
      MacAddress: endpoint.mac ? formatMac(endpoint.mac) : "",
      IPv4Address: text(4),
      IPv6Address: text(16),
    };
  }
  return out;
}

function addressUse(network: Network): Record<string, SubnetUse> {
  const out: Record<string, SubnetUse> = {};
  for (const { cidr, allocator } of network.subnets) {
    const bits = cidr.address.length * 8 - cidr.prefix;
    const all = bits >= 53 ? Number.MAX_SAFE_INTEGER : 2 ** bits - (cidr.address.length === 4 && bits > 1 ? 2 : 0);
    out[formatCidr(cidr)] = { IPsInUse: allocator.used, DynamicIPsAvailable: Math.max(0, all - allocator.used) };
  }
  return out;
}

/** `full`: with the containers on it, as for one network (and for lists below API 1.28). */
export function networkJson(network: Network, version: number, full: boolean): InspectJson {
  const { record } = network;
  return {
    Name: record.name,
    Id: record.id,
    Created: record.created,
    Scope: "local",
    Driver: record.driver,
    EnableIPv4: record.enableIPv4,
    EnableIPv6: record.enableIPv6,
    IPAM: {
      Driver: record.ipam.driver,
      Options: record.ipam.options,
      Config: hasLinks(network) || record.configOnly ? record.ipam.config : null,
    } as NonNullable<NetworkJson["IPAM"]>,
    Internal: record.internal,
    Attachable: record.attachable,
    Ingress: false,
    ConfigFrom: { Network: record.configFrom ?? "" },
    ConfigOnly: record.configOnly ?? false,
    Containers: full ? containers(network) : {},
    Options: record.options,
    Labels: record.labels,
    ...(full && version >= 52 && hasLinks(network) ? { Status: { IPAM: { Subnets: addressUse(network) } } } : {}),
  };
}
