// Names of containers on user-defined networks: what the resolver of one container answers.
import { formatAddress, type Names } from "../../network/index.ts";
import { type Endpoint, hasLinks, leadsOutside, type Sandbox } from "./state.ts";

const addresses = (endpoints: Iterable<Endpoint>) => [...endpoints].flatMap((e) => e.addresses.map((a) => a.cidr.address));

/** Lower-case names by the list they were made from: a list is never changed, only replaced. */
const lowered = new WeakMap<string[], Set<string>>();

function answersTo(endpoint: Endpoint, name: string): boolean {
  let names = lowered.get(endpoint.names);
  if (!names) {
    names = new Set(endpoint.names.map((n) => n.toLowerCase()));
    lowered.set(endpoint.names, names);
  }
  return names.has(name);
}

/** Names as seen from one container: those on the networks it shares, plain or with the network's name behind, and its own links. */
export function namesFor(sandbox: Sandbox): Names {
  return {
    forward(name) {
      const found: Uint8Array[] = [];
      for (const { network } of sandbox.endpoints) {
        if (network.predefined || !hasLinks(network)) continue;
        const suffix = `.${network.record.name.toLowerCase()}`;
        const plain = name.endsWith(suffix) ? name.slice(0, -suffix.length) : undefined;
        const alias = sandbox.links.get(name);
        for (const endpoint of network.endpoints.values()) {
          if (
            answersTo(endpoint, name) ||
            (plain !== undefined && answersTo(endpoint, plain)) ||
            (alias !== undefined && (endpoint.containerName === alias || endpoint.containerId === alias))
          )
            found.push(...addresses([endpoint]));
        }
      }
      return found.length > 0 ? found : undefined;
    },
    reverse(address) {
      const text = formatAddress(address);
      for (const { network } of sandbox.endpoints) {
        if (network.predefined || !hasLinks(network)) continue;
        for (const endpoint of network.endpoints.values())
          if (endpoint.addresses.some((a) => formatAddress(a.cidr.address) === text))
            return `${endpoint.containerName}.${network.record.name}`;
      }
      return undefined;
    },
    // a container without a way outside asks nobody there
    upstreams: () => (sandbox.endpoints.some((e) => leadsOutside(e.network)) ? sandbox.upstreams : []),
  };
}
