// The engine's settings for the default bridge: IPv6, a part of the subnet, packet size, addresses of published ports, ranges of other networks.
import { afterAll, afterEach, beforeAll, expect, test } from "bun:test";
import { createHarness, type Harness, isolated, PLAIN_BRIDGE, web } from "./harness.ts";

const inside = isolated(import.meta.path);
const it = inside ? test : (_name: string, _body: () => unknown) => {};
const settings = {
  defaultNetwork: {
    ...PLAIN_BRIDGE,
    ipv6: true,
    fixedCidr: "10.213.16.128/25",
    fixedCidrV6: "fd00:213:16::/64",
    mtu: 1380,
    hostBinding: "127.0.0.1",
  },
  addressPools: [
    { base: "10.213.32.0/20", size: 24 },
    { base: "fd00:213:32::/56", size: 64 },
  ],
};
const h: Harness = inside ? createHarness("jubakot6", "10.213.16.1/24", settings) : (undefined as never);

beforeAll(async () => {
  if (inside) await h.open();
});
afterEach(() => h?.endAll());
afterAll(async () => {
  if (inside) await h.close();
});

it("containers have addresses of both kinds, from where the settings say", async () => {
  const record = await h.run("one");
  expect(record.networks.bridge).toMatchObject({
    IPAddress: "10.213.16.128",
    Gateway: "10.213.16.1",
    GlobalIPv6Address: "fd00:213:16::2",
    GlobalIPv6PrefixLen: 64,
    IPv6Gateway: "fd00:213:16::1",
  });
  const ns = h.netns(record);
  expect(await h.sh("ip -6 route show default", ns)).toContain("default via fd00:213:16::1 dev eth0");
  expect(await h.sh("ip -o link show eth0", ns)).toContain(" mtu 1380 ");
  expect(await h.sh("busybox ping -c1 -W2 fd00:213:16::1 | grep -c ' 0% packet loss'", ns)).toBe("1\n");
  const server = await h.run("web", { command: web("six"), host: { PortBindings: { "80/tcp": [{ HostPort: "18090" }] } } });
  expect(await h.get(`http://[${server.networks.bridge!.GlobalIPv6Address}]/`, ns)).toBe("six");
  expect(server.networkSettings.Ports!["80/tcp"]).toEqual([{ HostIp: "127.0.0.1", HostPort: "18090" }]);
});

it("the default bridge shows it", async () => {
  const { json } = await h.call("GET", "/networks/bridge");
  expect(json).toMatchObject({
    EnableIPv6: true,
    IPAM: {
      Config: [
        { Subnet: "10.213.16.0/24", IPRange: "10.213.16.128/25", Gateway: "10.213.16.1" },
        { Subnet: "fd00:213:16::/64", Gateway: "fd00:213:16::1" },
      ],
    },
    Options: { "com.docker.network.driver.mtu": "1380", "com.docker.network.bridge.host_binding_ipv4": "127.0.0.1" },
  });
});

it("other networks get their subnets from the engine's ranges", async () => {
  for (const [name, v4, v6] of [
    ["first", "10.213.32.0/24", "fd00:213:32::/64"],
    ["second", "10.213.33.0/24", "fd00:213:32:1::/64"],
  ] as const) {
    expect((await h.call("POST", "/networks/create", { Name: name, EnableIPv6: true })).status).toBe(201);
    const { json } = await h.call("GET", `/networks/${name}`);
    expect(json.IPAM.Config.map((config: { Subnet: string }) => config.Subnet)).toEqual([v4, v6]);
  }
});
