import type { IPAMConfig } from "../../../api/types.ts";
import { command, exactly } from "../../command.ts";
import { checkLabel } from "../../container/values.ts";
import { bool, list, map, string, strings } from "../../flags.ts";

export default command({
  use: "[OPTIONS] NETWORK",
  short: "Create a network",
  args: exactly(1),
  flags: {
    attachable: bool("", "Enable manual container attachment"),
    "aux-address": map("", "Auxiliary IPv4 or IPv6 addresses used by Network driver"),
    "config-from": string("", "The network from which to copy the configuration"),
    "config-only": bool("", "Create a configuration only network"),
    driver: string("d", "Driver to manage the Network", "bridge"),
    gateway: strings("", "IPv4 or IPv6 Gateway for the master subnet"),
    ingress: bool("", "Create swarm routing-mesh network"),
    internal: bool("", "Restrict external access to the network"),
    "ip-range": strings("", "Allocate container ip from a sub-range"),
    "ipam-driver": string("", "IP Address Management Driver", "default"),
    "ipam-opt": map("", "Set IPAM driver specific options"),
    ipv4: bool("", "Enable or disable IPv4 address assignment", true),
    ipv6: bool("", "Enable or disable IPv6 address assignment"),
    label: list("", "Set metadata on a network", checkLabel),
    opt: map("o", "Set driver specific options"),
    scope: string("", "Control the network's scope"),
    subnet: strings("", "Subnet in CIDR format that represents a network segment"),
  },
  async run(cli, flags, args) {
    const labels = Object.fromEntries(
      flags.label.map((label) => {
        const at = label.indexOf("=");
        return at < 0 ? [label, ""] : [label.slice(0, at), label.slice(at + 1)];
      }),
    );
    const body: Record<string, unknown> = {
      Name: args[0],
      Driver: flags.driver,
      Options: flags.opt,
      Internal: flags.internal,
      Ingress: flags.ingress,
      Attachable: flags.attachable,
      ConfigOnly: flags["config-only"],
      Scope: flags.scope,
      Labels: labels,
      IPAM: { Driver: flags["ipam-driver"], Config: ipamConfig(flags), Options: flags["ipam-opt"] },
    };
    if (cli.changed.has("ipv4")) body.EnableIPv4 = flags.ipv4;
    if (cli.changed.has("ipv6")) body.EnableIPv6 = flags.ipv6;
    if (flags["config-from"] !== "") body.ConfigFrom = { Network: flags["config-from"] };
    const client = await cli.client();
    const answer = await client.networks.create(body);
    if (answer.Warning) cli.err(`WARNING: ${answer.Warning}\n`);
    cli.out(`${answer.Id}\n`);
  },
});

interface Subnet {
  bits: bigint;
  prefix: number;
  width: 32 | 128;
}

function parseSubnet(text: string): Subnet {
  const [address, length] = text.split("/") as [string, string?];
  const parsed = addressBits(address);
  if (!parsed || length === undefined || !/^\d+$/.test(length) || Number(length) > parsed.width)
    throw new Error(`invalid CIDR address: ${text}`);
  return { ...parsed, prefix: Number(length) };
}

function addressBits(text: string): { bits: bigint; width: 32 | 128 } | undefined {
  if (/^\d+(\.\d+){3}$/.test(text)) {
    const parts = text.split(".").map(Number);
    if (parts.some((part) => part > 255)) return undefined;
    return { bits: parts.reduce((n, part) => (n << 8n) | BigInt(part), 0n), width: 32 };
  }
  try {
    const host = new URL(`http://[${text}]/`).hostname.slice(1, -1);
    const [head, tail] = host.split("::") as [string, string?];
    const groups = (part: string | undefined) => (part ? part.split(":") : []);
    const front = groups(head);
    const back = groups(tail);
    const all = tail === undefined ? front : [...front, ...Array<string>(8 - front.length - back.length).fill("0"), ...back];
    return { bits: all.reduce((n, group) => (n << 16n) | BigInt(`0x${group}`), 0n), width: 128 };
  } catch {
    return undefined;
  }
}

function contains(subnet: Subnet, address: string): boolean {
  const parsed = addressBits(address.split("/")[0]!);
  if (!parsed) throw new Error(`invalid IP address: ${address}`);
  if (parsed.width !== subnet.width) return false;
  const shift = BigInt(subnet.width - subnet.prefix);
  return parsed.bits >> shift === subnet.bits >> shift;
}

/** Each range, gateway and auxiliary address goes to the subnet that contains it. */
function ipamConfig(flags: {
  subnet: string[];
  "ip-range": string[];
  gateway: string[];
  "aux-address": Record<string, string>;
}): IPAMConfig[] {
  if (flags.subnet.length < flags["ip-range"].length || flags.subnet.length < flags.gateway.length) {
    throw new Error("every ip-range or gateway must have a corresponding subnet");
  }
  const subnets = flags.subnet.map((text) => ({
    text,
    get subnet() {
      return parseSubnet(text);
    },
    config: { Subnet: text } as IPAMConfig,
  }));
  for (const [i, a] of subnets.entries()) {
    for (const b of subnets.slice(i + 1)) {
      if (contains(a.subnet, b.text) || contains(b.subnet, a.text))
        throw new Error("multiple overlapping subnet configuration is not supported");
    }
  }
  for (const range of flags["ip-range"]) {
    const home = subnets.find(({ subnet }) => contains(subnet, range));
    if (!home) throw new Error(`no matching subnet for range ${range}`);
    if (home.config.IPRange)
      throw new Error(`cannot configure multiple ranges (${range}, ${home.config.IPRange}) on the same subnet (${home.text})`);
    home.config.IPRange = range;
  }
  for (const gateway of flags.gateway) {
    const home = subnets.find(({ subnet }) => contains(subnet, gateway));
    if (!home) throw new Error(`no matching subnet for gateway ${gateway}`);
    if (home.config.Gateway)
      throw new Error(`cannot configure multiple gateways (${gateway}, ${home.config.Gateway}) for the same subnet (${home.text})`);
    home.config.Gateway = gateway;
  }
  for (const [name, address] of Object.entries(flags["aux-address"])) {
    const home = subnets.find(({ subnet }) => contains(subnet, address));
    if (!home) throw new Error(`no matching subnet for aux-address ${address}`);
    home.config.AuxiliaryAddresses = { ...home.config.AuxiliaryAddresses, [name]: address };
  }
  return subnets.map(({ config }) => config);
}
