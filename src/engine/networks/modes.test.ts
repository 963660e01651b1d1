import { afterAll, afterEach, beforeAll, expect, test } from "bun:test";
import { readFileSync, readlinkSync } from "node:fs";
import { createHarness, type Harness, isolated, until, web } from "./harness.ts";

const inside = isolated(import.meta.path);
const it = inside ? test : (_name: string, _body: () => unknown) => {};
const h: Harness = inside ? createHarness("jubakot1", "10.213.80.1/24") : (undefined as never);
const { run, end, sh, netns, get, lookup, ours, call, newRecord, networks } = h ?? ({} as Harness);
let outside: ReturnType<Harness["outsideHost"]>;

beforeAll(async () => {
  if (!inside) return;
  await h.open();
  outside = h.outsideHost();
});
afterEach(() => h?.endAll());
afterAll(async () => {
  if (!inside) return;
  await outside.close();
  await h.close();
});

const create = (body: object) => call("POST", "/networks/create", body);
const refusal = (promise: Promise<unknown>) =>
  promise.then(
    () => "done",
    (error: Error) => `${error.name}: ${error.message}`,
  );

it("none, host and container:ID", async () => {
  const none = await run("none", { host: { NetworkMode: "none" } });
  expect((await sh("ls /sys/class/net; ip -o link", netns(none))).match(/^\d+: /gm)?.length).toBe(1);
  expect(none.networks.none).toMatchObject({ IPAddress: "", MacAddress: "" });
  expect(none.networks.none!.EndpointID).toHaveLength(64);
  const host = newRecord("host", { NetworkMode: "host" });
  await networks.check(host, undefined);
  expect(await networks.attach(host)).toMatchObject({ netns: undefined, mode: "host", hostsPath: `${host.dir}/hosts` });
  // as old clients switch networking off
  const off = await run("off", { config: { NetworkDisabled: true } });
  expect(Object.keys(off.networks)).toEqual(["none"]);
  const one = await run("one");
  const two = newRecord("two", { NetworkMode: "container:one" });
  await networks.check(two, undefined);
  const shared = await networks.attach(two);
  expect(shared).toMatchObject({ mode: "container", hostsPath: `${one.dir}/hosts` });
  expect(readlinkSync(shared.netns!)).toBe(readlinkSync(netns(one)));
  await networks.detach(two);
  expect(await refusal(networks.check(newRecord("x", { NetworkMode: "container:one", PortBindings: { "80/tcp": [] } }), undefined))).toBe(
    "InvalidArgument: conflicting options: port publishing and the container type network mode",
  );
  await end(one);
  h.records.set(one.id, one);
  expect(await refusal(networks.attach(two))).toBe(
    `Conflict: failed to set up container networking: cannot join network of a non running container: ${one.id}`,
  );
});

it("an internal network reaches its own and the host, nothing else", async () => {
  await create({ Name: "inner", Internal: true, IPAM: { Config: [{ Subnet: "10.213.81.0/24" }] } });
  const server = await run("server", { host: { NetworkMode: "inner" }, command: web("inner") });
  const client = await run("client", { host: { NetworkMode: "inner" } });
  expect(server.networks.inner).toMatchObject({ Gateway: "", IPAddress: "10.213.81.2" });
  expect(await sh("ip route", netns(client))).not.toContain("default");
  expect(await get("http://server/", undefined)).not.toBe("inner");
  expect(await get("http://10.213.81.2/", netns(client))).toBe("inner");
  expect(await get("http://10.213.81.2/")).toBe("inner");
  expect(await lookup("server", netns(client))).toContain("10.213.81.2");
  await sh("ip route add default via 10.213.81.1", netns(client));
  expect(await get(`http://${outside.host}:1/`, netns(client))).not.toContain("inner");
  expect(await sh("timeout 1 busybox ping -c1 10.213.240.2 || echo closed", netns(client))).toContain("closed");
});

it("containers on a network without ICC meet only through published ports", async () => {
  await create({
    Name: "apart",
    Options: { "com.docker.network.bridge.enable_icc": "false" },
    IPAM: { Config: [{ Subnet: "10.213.82.0/24" }] },
  });
  const server = await run("server", {
    host: { NetworkMode: "apart", PortBindings: { "80/tcp": [{ HostPort: "18400" }] } },
    command: web("apart"),
  });
  const client = await run("client", { host: { NetworkMode: "apart" } });
  expect(server.networks.apart!.IPAddress).toBe("10.213.82.2");
  expect(await get("http://10.213.82.2/", netns(client))).not.toBe("apart");
  expect(await get(`http://${outside.host}:18400/`, netns(client))).toBe("apart");
  expect(await get("http://10.213.82.2/")).toBe("apart");
});

it("IPv6: addresses, gateway, names, published ports", async () => {
  await create({ Name: "six", EnableIPv6: true, IPAM: { Config: [{ Subnet: "10.213.83.0/24" }, { Subnet: "fd00:213:83::/64" }] } });
  const server = await run("server", {
    host: { NetworkMode: "six", PortBindings: { "80/tcp": [{ HostPort: "18500" }] } },
    command: web("six"),
  });
  const client = await run("client", { host: { NetworkMode: "six" } });
  expect(server.networks.six).toMatchObject({
    GlobalIPv6Address: "fd00:213:83::2",
    GlobalIPv6PrefixLen: 64,
    IPv6Gateway: "fd00:213:83::1",
  });
  expect(server.networkSettings.Ports!["80/tcp"]).toEqual([
    { HostIp: "0.0.0.0", HostPort: "18500" },
    { HostIp: "::", HostPort: "18500" },
  ]);
  expect(await sh("ip -6 route", netns(client))).toContain("default via fd00:213:83::1 dev eth0");
  expect(await lookup("server", netns(client))).toContain("fd00:213:83::2");
  expect(await get("http://[fd00:213:83::2]/", netns(client))).toBe("six");
  expect(await get("http://[fd00:213:83::1]:18500/", netns(client))).toBe("six");
  await create({ Name: "auto", EnableIPv6: true, IPAM: { Config: [{ Subnet: "10.213.84.0/24" }] } });
  const auto = (await call("GET", "/networks/auto")).json;
  expect(auto.EnableIPv6).toBe(true);
  expect(auto.IPAM.Config[1].Subnet).toMatch(/^fd.*\/64$/);
});

it("what Docker refuses is refused in its words", async () => {
  await create({ Name: "taken", IPAM: { Config: [{ Subnet: "10.213.85.0/24" }] } });
  expect(await refusal(create({ Name: "taken" }))).toBe("AlreadyExists: network with name taken already exists");
  expect(await refusal(create({ Name: "host" }))).toBe("PermissionDenied: operation is not permitted on predefined host network");
  expect(await refusal(create({ Name: "" }))).toBe("InvalidArgument: invalid name: name is empty");
  expect(await refusal(create({ Name: "x", Driver: "nosuch" }))).toBe('NotFound: plugin "nosuch" not found');
  expect(await refusal(create({ Name: "x", Driver: "overlay" }))).toStartWith("Unimplemented: ");
  expect(await refusal(create({ Name: "x", IPAM: { Config: [{ Subnet: "10.213.85.0/25" }] } }))).toBe(
    "PermissionDenied: invalid pool request: Pool overlaps with other one on this address space",
  );
  expect(await refusal(create({ Name: "x", IPAM: { Config: [{ Subnet: "10.213.86.1/24" }] } }))).toContain(
    "invalid subnet 10.213.86.1/24: it should be 10.213.86.0/24",
  );
  expect(await refusal(create({ Name: "x", IPAM: { Config: [{ Subnet: "10.213.86.0/24", Gateway: "10.0.0.1" }] } }))).toContain(
    "parent subnet is",
  );
  expect(await refusal(create({ Name: 5 }))).toBe("InvalidArgument: Name is not a string");
  expect(await refusal(call("DELETE", "/networks/bridge"))).toBe("PermissionDenied: bridge is a pre-defined network and cannot be removed");
  expect(await refusal(call("GET", "/networks/nosuch"))).toBe("NotFound: network nosuch not found");
  const at = (ip: string, network = "taken") =>
    refusal(networks.check(newRecord("r", { NetworkMode: network }), { [network]: { IPAMConfig: { IPv4Address: ip } } }));
  expect(await at("10.213.85.9")).toBe("done");
  expect(await at("10.0.0.9")).toContain("no configured subnet contains IP address 10.0.0.9");
  expect(await at("10.213.80.9", "bridge")).toContain("user specified IP address is supported on user defined networks only");
  expect(await at("10.213.85.900")).toContain("invalid IPv4 address");
  for (const ports of [{ "99999/tcp": [] }, { "80/foo": [] }, { "80/tcp": [{ HostPort: "x" }] }, { "80/tcp": [{ HostPort: "9-8" }] }])
    expect(await refusal(networks.check(newRecord("p", { PortBindings: ports }), undefined))).toStartWith(
      "InvalidArgument: invalid port specification",
    );
  // a network that is not there is found out at the start
  const lost = newRecord("lost", { NetworkMode: "nosuch" });
  await networks.check(lost, undefined);
  expect(await refusal(networks.attach(lost))).toBe("NotFound: failed to set up container networking: network nosuch not found");
});

it("lists by filters, and the JSON has Docker's fields", async () => {
  await create({ Name: "listed", Labels: { a: "b" }, IPAM: { Config: [{ Subnet: "10.213.87.0/24" }] } });
  const names = async (filters: object) =>
    (await call("GET", "/networks", undefined, `filters=${encodeURIComponent(JSON.stringify(filters))}`)).json.map(
      (n: { Name: string }) => n.Name,
    );
  expect(await names({ label: ["a=b"] })).toEqual(["listed"]);
  expect(await names({ type: ["builtin"] })).toEqual(["bridge", "host", "none"]);
  expect(await names({ name: ["list"], driver: ["bridge"] })).toEqual(["listed"]);
  expect(await refusal(names({ nosuch: ["x"] }))).toStartWith("InvalidArgument: invalid filter");
  const bridge = (await call("GET", "/networks/bridge")).json;
  expect(Object.keys(bridge)).toEqual(
    "Name Id Created Scope Driver EnableIPv4 EnableIPv6 IPAM Internal Attachable Ingress ConfigFrom ConfigOnly Containers Options Labels".split(
      " ",
    ),
  );
  expect(bridge.IPAM.Config).toEqual([{ Subnet: "10.213.80.0/24", Gateway: "10.213.80.1" }]);
  expect((await call("GET", "/networks/bridge", undefined, "", 52)).json.Status.IPAM.Subnets["10.213.80.0/24"]).toEqual({
    IPsInUse: 1,
    DynamicIPsAvailable: 253,
  });
});

it("the resolver passes on to the host's resolvers, and a program may have port 53 for itself", async () => {
  await create({ Name: "dns", IPAM: { Config: [{ Subnet: "10.213.88.0/24" }] } });
  // the upstream is a container's own program on port 53
  const server = await run("upstream", {
    host: { NetworkMode: "dns" },
    command: `exec ${process.execPath} -e '
      const { createSocket } = require("dgram");
      const s = createSocket("udp4");
      s.on("message", (q, from) => {
        let end = 12; while (q[end]) end += q[end] + 1; end += 5;
        const a = Buffer.concat([q.subarray(0, end), Buffer.from([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 9, 8, 7, 6])]);
        a[2] = 0x81; a[3] = 0x80; a[5] = 1; a[7] = q[end - 3] === 1 ? 1 : 0; a[9] = 0; a[11] = 0;
        s.send(a[7] ? a : a.subarray(0, end), from.port, from.address);
      });
      s.bind(53, "0.0.0.0")'`,
  });
  await until(() => readFileSync(`/proc/${h.pids.get(server.id)}/net/udp`, "utf8").includes("00000000:0035"));
  const client = await run("client", { host: { NetworkMode: "dns", Dns: [server.networks.dns!.IPAddress!] } });
  expect(await lookup("example.org", netns(client))).toContain("9.8.7.6");
  expect(await lookup("upstream", netns(client))).toContain("10.213.88.2");
  expect(await sh("busybox nslookup anything.test 127.0.0.1", netns(server))).toContain("9.8.7.6");
  expect(await lookup("client", netns(server))).toContain("10.213.88.3");
  await end(server);
  await end(client);
  await until(() => ours().every((name) => name.startsWith("jbk-")));
});

it("config-only networks: others are made from them, nobody is on them", async () => {
  const config = { Subnet: "10.213.90.0/24", IPRange: "10.213.90.128/25", Gateway: "10.213.90.9" };
  const shape = {
    Name: "shape",
    ConfigOnly: true,
    IPAM: { Config: [config] },
    Options: { "com.docker.network.driver.mtu": "1300" },
    Labels: { a: "b" },
  };
  expect((await h.call("POST", "/networks/create", shape)).status).toBe(201);
  expect((await h.call("GET", "/networks/shape")).json).toMatchObject({
    ConfigOnly: true,
    Driver: "null",
    IPAM: { Config: [config] },
    Labels: { a: "b" },
  });
  const refusal = (promise: Promise<unknown>) => promise.then(String, (error: Error) => error.message);
  const from = (more: object = {}) => h.call("POST", "/networks/create", { Name: "made", ConfigFrom: { Network: "shape" }, ...more });
  expect(await refusal(from({ Labels: { c: "d" } }))).toContain("user specified configurations are not supported");
  expect(await refusal(h.call("POST", "/networks/create", { Name: "x", ConfigFrom: { Network: "bridge" } }))).toBe(
    'configuration network "bridge" does not exist',
  );
  expect(await refusal(h.call("POST", "/networks/create", { Name: "x", ConfigOnly: true, Internal: true }))).toContain(
    "Network operator fields",
  );
  expect(await refusal(h.run("on", { host: { NetworkMode: "shape" }, endpoints: { shape: {} } }))).toContain("configuration-only network");
  expect((await from()).status).toBe(201);
  expect((await h.call("GET", "/networks/made")).json).toMatchObject({
    ConfigFrom: { Network: "shape" },
    ConfigOnly: false,
    Driver: "bridge",
    IPAM: { Config: [config] },
    Labels: { a: "b" },
  });
  const record = await h.run("placed", { host: { NetworkMode: "made" }, endpoints: { made: {} } });
  expect(record.networks.made).toMatchObject({ IPAddress: "10.213.90.128", Gateway: "10.213.90.9" });
  expect(await h.sh("ip -o link show eth0", h.netns(record))).toContain(" mtu 1300 ");
  expect(await refusal(h.call("DELETE", "/networks/shape"))).toContain('configuration network "shape" is in use');
  await h.end(record);
  await h.call("DELETE", "/networks/made");
  expect((await h.call("DELETE", "/networks/shape")).status).toBe(204);
});
