// A container's place in the network before anything is in it: empty sandboxes and endpoints, and the names that the container goes by.
import type { EndpointSettings } from "../../api/types.ts";
import type { ContainerRecord } from "../context.ts";
import { newId } from "./registry.ts";
import type { Endpoint, Network, Sandbox } from "./state.ts";

/** Names by which others on a user-defined network find the container. */
export function dnsNames(record: ContainerRecord, settings: EndpointSettings): string[] {
  const names = [record.name, ...(settings.Aliases ?? []), record.id.slice(0, 12), record.config.Hostname ?? ""];
  return [...new Set(names.filter((name) => name !== ""))];
}

/** `--link other:alias`, of the container and of its endpoints. */
export function linksOf(record: ContainerRecord): Map<string, string> {
  const links = new Map<string, string>();
  for (const link of [...(record.hostConfig.Links ?? []), ...Object.values(record.networks).flatMap((s) => s.Links ?? [])]) {
    const [other, alias] = link.split(":");
    if (other) links.set((alias || other).replace(/^.*\//, "").toLowerCase(), other.replace(/^\//, ""));
  }
  return links;
}

/** `id`: as it was before, for one that is found again. */
export function newSandbox(record: ContainerRecord, id?: string): Sandbox {
  return {
    id: id || newId(),
    containerId: record.id,
    namespace: undefined,
    pid: 0,
    endpoints: [],
    ports: { bound: [], published: [] },
    resolver: undefined,
    upstreams: [],
    links: linksOf(record),
  };
}

/** `id`: as it was before, for one that is found again. */
export function newEndpoint(network: Network, record: ContainerRecord, settings: EndpointSettings | undefined, id?: string): Endpoint {
  return {
    id: id || newId(),
    network,
    containerId: record.id,
    containerName: record.name,
    veth: "",
    interface: "",
    index: 0,
    mac: undefined,
    addresses: [],
    names: [],
    gatewayPriority: settings?.GwPriority ?? 0,
  };
}
