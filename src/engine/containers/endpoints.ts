// A container's endpoints as the API shows them: each field present, and only those that the asked-for version knows.
import type { EndpointSettings } from "../../api/types.ts";

const DEFAULTS = {
  IPAMConfig: null,
  Links: null,
  Aliases: null,
  MacAddress: "",
  DriverOpts: null,
  GwPriority: 0,
  NetworkID: "",
  EndpointID: "",
  Gateway: "",
  IPAddress: "",
  IPPrefixLen: 0,
  IPv6Gateway: "",
  GlobalIPv6Address: "",
  GlobalIPv6PrefixLen: 0,
  DNSNames: null,
};

export function shownEndpoints(networks: Record<string, EndpointSettings>, version: number): Record<string, EndpointSettings> {
  const shown: Record<string, EndpointSettings> = {};
  for (const name in networks) {
    const endpoint = { ...DEFAULTS, ...networks[name] } as EndpointSettings;
    if (version < 44) delete endpoint.DNSNames;
    if (version < 48) delete endpoint.GwPriority;
    shown[name] = endpoint;
  }
  return shown;
}
