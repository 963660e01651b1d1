// Endpoint settings in a container's record: what was asked for, what was assigned, and telling the two apart.
import type { EndpointSettings } from "../../api/types.ts";
import { formatAddress, formatMac, macOf, parseAddress } from "../../network/index.ts";
import type { ContainerRecord } from "../context.ts";
import { type Endpoint, gatewayOf } from "./state.ts";

/** The fields of an endpoint that are assigned while it is plugged in, as they are when it is not. */
export const NOTHING_ASSIGNED = {
  NetworkID: "",
  EndpointID: "",
  Gateway: "",
  IPAddress: "",
  IPPrefixLen: 0,
  IPv6Gateway: "",
  GlobalIPv6Address: "",
  GlobalIPv6PrefixLen: 0,
};

export type Mode = "bridge" | "none" | "host" | "container";

/** What kind of network a container asks for; without a default bridge, or with networking switched off, none. */
export function modeFor(record: Pick<ContainerRecord, "config" | "hostConfig">, defaultBridge: boolean): { mode: Mode; name: string } {
  const asked = modeOf(record.hostConfig.NetworkMode);
  return record.config.NetworkDisabled || (asked.name === "bridge" && !defaultBridge) ? { mode: "none", name: "none" } : asked;
}

/** What kind of network a NetworkMode names. */
export function modeOf(networkMode: string | undefined): { mode: Mode; name: string } {
  const name = networkMode === undefined || networkMode === "" || networkMode === "default" ? "bridge" : networkMode;
  if (name === "host" || name === "none") return { mode: name, name };
  if (name.startsWith("container:")) return { mode: "container", name: name.slice("container:".length) };
  return { mode: "bridge", name };
}

/** Whether a MAC in the settings is the user's wish, and not what was assigned with an address before. */
export function wantedMac(settings: EndpointSettings): string | undefined {
  if (!settings.MacAddress) return undefined;
  const before = settings.IPAddress ? parseAddress(settings.IPAddress) : undefined;
  const assigned = [before?.length === 4 ? macOf(before) : undefined, settings.EndpointID ? macOfEndpoint(settings.EndpointID) : undefined];
  return assigned.some((mac) => mac && formatMac(mac) === settings.MacAddress) ? undefined : settings.MacAddress;
}

/** For an endpoint whose address gives none: without IPv4, or where another container may have had the address a moment ago. */
export function macOfEndpoint(id: string): Uint8Array {
  return macOf(Buffer.from(id.slice(0, 8), "hex"));
}

/** Writes what was assigned into the record's settings. */
export function assign(settings: EndpointSettings, endpoint: Endpoint): void {
  const { network } = endpoint;
  const v4 = endpoint.addresses.find((a) => a.cidr.address.length === 4);
  const v6 = endpoint.addresses.find((a) => a.cidr.address.length === 16);
  const gateway = (a: typeof v4) => (a && gatewayOf(network, a.subnet) ? formatAddress(a.subnet.gateway) : "");
  settings.NetworkID = network.record.id;
  settings.EndpointID = endpoint.id;
  settings.Gateway = gateway(v4);
  settings.IPAddress = v4 ? formatAddress(v4.cidr.address) : "";
  settings.IPPrefixLen = v4?.cidr.prefix ?? 0;
  settings.IPv6Gateway = gateway(v6);
  settings.GlobalIPv6Address = v6 ? formatAddress(v6.cidr.address) : "";
  settings.GlobalIPv6PrefixLen = v6?.cidr.prefix ?? 0;
  settings.MacAddress = endpoint.mac ? formatMac(endpoint.mac) : "";
  if (endpoint.names.length > 0) settings.DNSNames = endpoint.names;
}

/** Clears what was assigned; keeps what the user asked for, and which network it is. */
export function unassign(settings: EndpointSettings): void {
  const { NetworkID = "" } = settings;
  Object.assign(settings, NOTHING_ASSIGNED, { NetworkID, MacAddress: wantedMac(settings) ?? "" });
}
