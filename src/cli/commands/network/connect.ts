import type { EndpointSettings } from "../../../api/types.ts";
import { command, exactly } from "../../command.ts";
import { checkLink } from "../../container/values.ts";
import { int, list, string, strings } from "../../flags.ts";

export default command({
  use: "[OPTIONS] NETWORK CONTAINER",
  short: "Connect a container to a network",
  args: exactly(2),
  flags: {
    alias: strings("", "Add network-scoped alias for the container"),
    "driver-opt": strings("", "driver options for the network"),
    "gw-priority": int("", "Highest gw-priority provides the default gateway. Accepts positive and negative values."),
    ip: string("", 'IPv4 address (e.g., "172.30.100.104")'),
    ip6: string("", 'IPv6 address (e.g., "2001:db8::33")'),
    link: list("", "Add link to another container", checkLink),
    "link-local-ip": strings("", "Add a link-local address for the container"),
  },
  async run(cli, flags, args) {
    const [network, container] = args as [string, string];
    const options: Record<string, string> = {};
    for (const option of flags["driver-opt"]) {
      const at = option.indexOf("=");
      if (at <= 0) throw new Error("invalid key=value format in driver options");
      options[option.slice(0, at).trim().toLowerCase()] = option.slice(at + 1).trim();
    }
    const ipam: NonNullable<EndpointSettings["IPAMConfig"]> = {
      ...(flags.ip ? { IPv4Address: flags.ip } : {}),
      ...(flags.ip6 ? { IPv6Address: flags.ip6 } : {}),
      ...(flags["link-local-ip"].length > 0 ? { LinkLocalIPs: flags["link-local-ip"] } : {}),
    };
    const client = await cli.client();
    await client.networks.connect(network, container, {
      IPAMConfig: ipam,
      ...(flags.link.length > 0 ? { Links: flags.link } : {}),
      ...(flags.alias.length > 0 ? { Aliases: flags.alias } : {}),
      DriverOpts: options,
      ...(flags["gw-priority"] === 0 ? {} : { GwPriority: flags["gw-priority"] }),
    });
  },
});
