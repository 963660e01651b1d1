// A container's endpoints as the API shows them: each field present, and only those that the asked-for version knows.
import type { EndpointSettings } from "../../api/types.ts";
import { NOTHING_ASSIGNED } from "../networks/settings.ts";

const DEFAULTS = {
  IPAMConfig: null,
  Links: null,
  Aliases: null,
  MacAddress: "",
  DriverOpts: null,
  GwPriority: 0,
  ...NOTHING_ASSIGNED,
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
