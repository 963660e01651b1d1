import { command, StatusError } from "../command.ts";

export default command({
  use: "CONTAINER [PRIVATE_PORT[/PROTO]]",
  short: "List port mappings or a specific mapping for the container",
  args: [1, 2],
  flags: {},
  async run(cli, _flags, args) {
    const [name, wanted] = args as [string, string?];
    const client = await cli.client();
    const ports = (await client.containers.inspect(name)).NetworkSettings?.Ports ?? {};
    const address = (b: { HostIp?: string; HostPort?: string }) => `${b.HostIp?.includes(":") ? `[${b.HostIp}]` : b.HostIp}:${b.HostPort}`;
    if (wanted !== undefined) {
      const [number, proto = "tcp"] = wanted.split("/") as [string, string?];
      const bindings = ports[`${number}/${proto}`];
      if (!/^\d+$/.test(number) || bindings === undefined || bindings === null)
        throw new StatusError(1, `Error: No public port '${wanted}' published for ${name}`);
      cli.out(bindings.map((b) => `${address(b)}\n`).join(""));
      return 0;
    }
    const lines = Object.entries(ports).flatMap(([port, bindings]) => (bindings ?? []).map((b) => `${port} -> ${address(b)}\n`));
    const number = (line: string) => Number.parseInt(line, 10);
    cli.out(lines.sort((a, b) => number(a) - number(b)).join(""));
    return 0;
  },
});
