import { afterAll, afterEach, beforeAll, expect, test } from "bun:test";
import { spawn } from "node:child_process";
import { createSocket } from "node:dgram";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { createConnection } from "node:net";
import { createFirewall } from "../../network/index.ts";
import { createHarness, type Harness, isolated, until, web } from "./harness.ts";

const inside = isolated(import.meta.path);
const it = inside ? test : (_name: string, _body: () => unknown) => {};
const h: Harness = inside ? createHarness("jubakot0", "10.213.0.1/20") : (undefined as never);
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

it("a container on the default bridge has address, route, files, and its gateway answers", async () => {
  const record = await run("one", { host: { ExtraHosts: ["db:10.0.0.9", "gw:host-gateway"] } });
  expect(record.networks.bridge).toMatchObject({
    IPAddress: "10.213.0.2",
    IPPrefixLen: 20,
    Gateway: "10.213.0.1",
    MacAddress: "02:42:0a:d5:00:02",
  });
  expect(record.networkSettings).toMatchObject({ SandboxID: expect.stringMatching(/^[0-9a-f]{64}$/), Ports: {} });
  expect(await sh("ip -o -4 addr show eth0", netns(record))).toContain("10.213.0.2/20");
  expect(await sh("ip route", netns(record))).toContain("default via 10.213.0.1 dev eth0");
  expect(await sh("ip -6 addr show eth0", netns(record))).toBe("");
  const hosts = readFileSync(`${record.dir}/hosts`, "utf8");
  expect(hosts).toContain("10.0.0.9\tdb\n10.213.0.1\tgw\n10.213.0.2\tf00d");
  expect(readFileSync(`${record.dir}/hostname`, "utf8")).toBe(`${record.config.Hostname}\n`);
  expect(existsSync((record.networkSettings as { SandboxKey: string }).SandboxKey)).toBe(true);
  const second = await run("two");
  expect(second.networks.bridge!.IPAddress).toBe("10.213.0.3");
  await end(record);
  expect(record.networks.bridge).toMatchObject({ IPAddress: "", EndpointID: "", MacAddress: "" });
  const third = await run("three");
  expect(third.networks.bridge!.IPAddress).toBe("10.213.0.2");
});

it("a published port is reached from outside, by localhost, by the host's address, from other containers and from the container itself", async () => {
  const server = await run("web", {
    host: { PortBindings: { "80/tcp": [{ HostPort: "18080" }, { HostIp: "127.0.0.1", HostPort: "18081" }] } },
    command: web("served"),
  });
  const other = await run("other");
  expect(server.networkSettings.Ports!["80/tcp"]).toEqual([
    { HostIp: "0.0.0.0", HostPort: "18080" },
    { HostIp: "::", HostPort: "18080" },
    { HostIp: "127.0.0.1", HostPort: "18081" },
  ]);
  const where: [string, string | undefined][] = [
    [`http://${outside.host}:18080/`, outside.netns],
    ["http://127.0.0.1:18080/", undefined],
    ["http://127.0.0.1:18081/", undefined],
    ["http://localhost:18080/", undefined],
    ["http://[::1]:18080/", undefined],
    [`http://${outside.host}:18080/`, undefined],
    ["http://10.213.0.1:18080/", undefined],
    ["http://10.213.0.2/", netns(other)],
    ["http://10.213.0.1:18080/", netns(other)],
    [`http://${outside.host}:18080/`, netns(other)],
    [`http://${outside.host}:18080/`, netns(server)],
  ];
  for (const [i, [url, from]] of where.entries()) expect(`${i} ${url} ${await get(url, from)}`).toBe(`${i} ${url} served`);
  // what is published on localhost only, and what is not published, stays closed to the outside
  expect(await get(`http://${outside.host}:18081/`, outside.netns)).not.toBe("served");
  expect(await get("http://10.213.0.2/", outside.netns)).not.toBe("served");
  await end(server);
  expect(await get("http://127.0.0.1:18080/")).not.toBe("served");
});

it("what comes by IPv6 for a container with IPv4 is passed on whole, both ways, with its half-closes", async () => {
  const echo = `exec ${process.execPath} -e 'require("net").createServer({ allowHalfOpen: true }, (s) => s.pipe(s)).listen(80, "0.0.0.0")'`;
  await run("echo", { host: { PortBindings: { "80/tcp": [{ HostPort: "18120" }] } }, command: echo });
  await until(async () => (await sh("busybox nc -w1 10.213.0.2 80 </dev/null && echo up")).includes("up"));
  const size = 3_000_000;
  const sent = Buffer.alloc(size, "0123456789abcdef");
  const connect = () =>
    new Promise<Buffer>((resolve, reject) => {
      const socket = createConnection({ host: "::1", port: 18120, allowHalfOpen: true });
      const chunks: Buffer[] = [];
      socket.on("data", (chunk) => chunks.push(chunk));
      socket.on("end", () => resolve(Buffer.concat(chunks)));
      socket.on("error", reject);
      socket.end(sent);
    });
  for (const got of await Promise.all([connect(), connect(), connect()])) expect(got.equals(sent)).toBe(true);
});

it("containers reach the outside behind the host's address", async () => {
  const record = await run("client");
  const listener = spawn("nsenter", [`--net=${outside.netns}`, "busybox", "sh", "-c", web("far")], { stdio: "ignore", detached: true });
  await Bun.sleep(80);
  try {
    expect(await get("http://10.213.240.2/", netns(record))).toBe("far");
  } finally {
    process.kill(-listener.pid!, "SIGKILL");
  }
});

it("UDP, ranges and ephemeral ports", async () => {
  const record = await run("udp", {
    host: { PortBindings: { "90/udp": [{ HostPort: "18090" }], "91/tcp": [{ HostPort: "18091-18093" }], "92/tcp": [{ HostPort: "" }] } },
    config: { ExposedPorts: { "99/tcp": {} } },
    command: `exec ${process.execPath} -e 'const s = require("dgram").createSocket("udp4", (m, from) => s.send(m, from.port, from.address)); s.bind(90)'`,
  });
  const ports = record.networkSettings.Ports!;
  expect(ports["91/tcp"]).toContainEqual({ HostIp: "0.0.0.0", HostPort: "18091" });
  expect(Number(ports["92/tcp"]![0]!.HostPort)).toBeGreaterThan(1024);
  expect(ports["99/tcp"]).toBeNull();
  const second = await run("udp2", { host: { PortBindings: { "91/tcp": [{ HostPort: "18091-18093" }] } } });
  expect(second.networkSettings.Ports!["91/tcp"]).toContainEqual({ HostIp: "0.0.0.0", HostPort: "18092" });
  const socket = createSocket("udp4");
  let echo = "";
  socket.on("message", (message) => {
    echo = message.toString();
  });
  await until(() => {
    socket.send("ping", 18090, "127.0.0.1");
    return echo === "ping";
  });
  // a sender that was there before the port was published is not stuck with what it met then
  echo = "";
  const early = createSocket("udp4");
  early.on("message", (message) => {
    echo = message.toString();
  });
  early.send("early", 18094, "127.0.0.1");
  await Bun.sleep(20);
  const program = `exec ${process.execPath} -e 'const s = require("dgram").createSocket("udp4", (m, from) => s.send(m, from.port, from.address)); s.bind(94)'`;
  await run("udp3", { host: { PortBindings: { "94/udp": [{ HostPort: "18094" }] } }, command: program });
  await until(() => {
    early.send("early", 18094, "127.0.0.1");
    return echo === "early";
  });
  early.close();
  socket.close();
});

it("attaching and detaching leaves no descriptor, no element and no address behind", async () => {
  await call("POST", "/networks/create", { Name: "again", IPAM: { Config: [{ Subnet: "10.213.34.0/24" }] } });
  const count = () => readdirSync("/proc/self/fd").length;
  const once = async (mode: string) => {
    const record = newRecord("again", { NetworkMode: mode, PortBindings: { "80/tcp": [{ HostPort: "18130" }], "81/udp": [{}] } });
    await networks.check(record, undefined);
    await networks.attach(record);
    await networks.detach(record);
    h.records.delete(record.id);
  };
  for (const mode of ["bridge", "again", "none"]) await once(mode);
  await Bun.sleep(200);
  const before = count();
  for (let i = 0; i < 10; i++) for (const mode of ["bridge", "again", "none"]) await once(mode);
  await until(() => count() <= before && ours().every((name) => name.startsWith("jbk-")));
  const use = (await call("GET", "/networks/again", undefined, "", 52)).json.Status.IPAM.Subnets;
  expect(use["10.213.34.0/24"].IPsInUse).toBe(1);
  expect(await sh("nft list ruleset | grep -c ' 18130 '")).toStartWith("0");
  await call("DELETE", "/networks/again");
});

it("forward chains of others that drop by default are named", async () => {
  await sh("nft add table ip filter; nft add chain ip filter FORWARD '{ type filter hook forward priority 0; policy drop; }'");
  const firewall = createFirewall("jubako-00000000");
  try {
    expect(firewall.obstacles()).toEqual(["ip filter FORWARD"]);
  } finally {
    firewall.close();
    await sh("nft delete table ip filter");
  }
});

it("rules that another program flushes come back", async () => {
  await run("web", { host: { PortBindings: { "80/tcp": [{ HostPort: "18110" }] } }, command: web("back") });
  const table = (await sh("ip -d link show jubakot0")).match(/jubako-[0-9a-f]+/)![0];
  const answer = async () => (await get("http://127.0.0.1:18110/")) === "back";
  expect(await answer()).toBe(true);
  await sh(`nft delete table inet ${table}`);
  for (let i = 0; i < 40 && !(await answer()); i++) await Bun.sleep(50);
  expect(await answer()).toBe(true);
  await sh(`nft flush chain inet ${table} publish`);
  await Bun.sleep(300);
  expect(await answer()).toBe(true);
});

it("a port that is taken fails with Docker's words, and leaves nothing behind", async () => {
  const held = Bun.listen({ hostname: "0.0.0.0", port: 0, socket: { data() {} } });
  const first = await run("first", { host: { PortBindings: { "80/tcp": [{ HostPort: "18100" }] } } });
  const failing = async (port: string) => {
    const record = newRecord("failing", { PortBindings: { "80/tcp": [{ HostPort: port }] } });
    await networks.check(record, undefined);
    const error = await networks.attach(record).then(
      () => "attached",
      (e: Error) => e.message,
    );
    h.records.delete(record.id);
    expect(record.networks.bridge!.IPAddress).toBe("");
    return error;
  };
  expect(await failing("18100")).toMatch(
    /^failed to set up container networking: driver failed programming external connectivity on endpoint failing \([0-9a-f]{64}\): Bind for 0.0.0.0:18100 failed: port is already allocated$/,
  );
  expect(await failing(String(held.port))).toMatch(
    new RegExp(
      `^failed to set up container networking: driver failed .*: failed to bind host port 0\\.0\\.0\\.0:${held.port}/tcp: address already in use$`,
    ),
  );
  held.stop();
  const next = await run("next");
  expect(next.networks.bridge!.IPAddress).toBe("10.213.0.3");
  await end(first);
  await end(next);
  await until(() => ours().length === 0);
});

it("user-defined networks: names, aliases, isolation, live connect and disconnect", async () => {
  const created = await call("POST", "/networks/create", {
    Name: "jubako-a",
    IPAM: { Config: [{ Subnet: "10.213.32.0/24" }] },
    Labels: { x: "1" },
  });
  expect(created.status).toBe(201);
  const { Id } = created.json;
  await call("POST", "/networks/create", {
    Name: "jubako-b",
    IPAM: { Config: [{ Subnet: "10.213.33.0/24", Gateway: "10.213.33.9", IPRange: "10.213.33.64/26" }] },
  });
  const server = await run("server", {
    host: { NetworkMode: "jubako-a", PortBindings: { "80/tcp": [{ HostPort: "18200" }] } },
    endpoints: { "jubako-a": { Aliases: ["db"], IPAMConfig: { IPv4Address: "10.213.32.77" } } },
    command: web("a"),
  });
  expect(server.networks["jubako-a"]).toMatchObject({ IPAddress: "10.213.32.77", DNSNames: ["server", "db", server.id.slice(0, 12)] });
  const client = await run("client", {
    host: { NetworkMode: "jubako-a" },
    endpoints: { "jubako-a": { DriverOpts: { "com.docker.network.endpoint.ifname": "inner0" } } },
  });
  expect(await sh("ip -o link", netns(client))).toContain(" inner0@");
  expect(readFileSync(`${client.dir}/resolv.conf`, "utf8")).toContain("nameserver 127.0.0.11\n");
  for (const name of ["server", "db", "DB", "server.jubako-a", server.id.slice(0, 12)])
    expect(`${name} ${await lookup(name, netns(client))}`).toContain("10.213.32.77");
  expect(await lookup("10.213.32.77", netns(client))).toContain("server.jubako-a");
  expect(await get("http://10.213.32.77/", netns(client))).toBe("a");

  const stranger = await run("stranger", { host: { NetworkMode: "jubako-b" } });
  expect(stranger.networks["jubako-b"]).toMatchObject({ IPAddress: "10.213.33.64", Gateway: "10.213.33.9" });
  expect(await lookup("server", netns(stranger))).not.toContain("10.213.32.77");
  expect(await get("http://10.213.32.77/", netns(stranger))).not.toBe("a");
  // but what is published can be reached through the host
  expect(await get(`http://${outside.host}:18200/`, netns(stranger))).toBe("a");

  // what the container makes itself is in nobody's way
  await sh("ip link add own0 type bridge", netns(stranger));
  await call("POST", "/networks/jubako-a/connect", { Container: "stranger", EndpointConfig: { Aliases: ["odd"] } });
  expect(stranger.networks["jubako-a"]!.IPAddress).toBe("10.213.32.3");
  expect(await lookup("server", netns(stranger))).toContain("10.213.32.77");
  expect(await lookup("odd", netns(client))).toContain("10.213.32.3");
  expect(await get("http://10.213.32.77/", netns(stranger))).toBe("a");
  const inspected = (await call("GET", "/networks/jubako-a")).json;
  expect(inspected).toMatchObject({
    Name: "jubako-a",
    Id,
    Driver: "bridge",
    Scope: "local",
    Labels: { x: "1" },
    IPAM: { Config: [{ Subnet: "10.213.32.0/24", Gateway: "10.213.32.1" }] },
  });
  expect(inspected.Containers[stranger.id]).toMatchObject({ Name: "stranger", IPv4Address: "10.213.32.3/24" });
  await expect(call("DELETE", "/networks/jubako-a")).rejects.toThrow("has active endpoints");
  await expect(call("POST", "/networks/jubako-a/connect", { Container: "stranger" })).rejects.toThrow(
    "endpoint with name stranger already exists in network jubako-a",
  );

  await sh(`echo '1.2.3.4 mine' >> ${stranger.dir}/hosts; echo 'options mine' >> ${stranger.dir}/resolv.conf`);
  await call("POST", "/networks/jubako-a/disconnect", { Container: "stranger" });
  const hosts = readFileSync(`${stranger.dir}/hosts`, "utf8");
  expect(hosts).toContain("\n1.2.3.4 mine\n");
  expect(hosts).not.toContain("10.213.32.3");
  expect(readFileSync(`${stranger.dir}/resolv.conf`, "utf8")).toContain("options mine");
  expect(stranger.networks["jubako-a"]).toBeUndefined();
  expect(await sh("ip -o link", netns(stranger))).not.toContain("eth1");
  expect(await sh("ip route", netns(stranger))).toContain("default via 10.213.33.9");
  for (const record of [server, client, stranger]) await end(record);
  await call("DELETE", `/networks/${Id.slice(0, 12)}`);
  expect((await call("POST", "/networks/prune")).json.NetworksDeleted).toEqual(["jubako-b"]);
  await expect(call("GET", "/networks/jubako-a")).rejects.toThrow("network jubako-a not found");
  await until(() => ours().length === 0);
});
