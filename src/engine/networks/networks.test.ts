import { afterAll, afterEach, beforeAll, expect, test } from "bun:test";
import { type ChildProcess, spawn } from "node:child_process";
import { createSocket } from "node:dgram";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { DatabaseSync } from "node:sqlite";
import type { EndpointSettings, HostConfig } from "../../api/types.ts";
import { notFound } from "../../lib/errors.ts";
import {
  addAddress,
  addRoute,
  addVeth,
  close,
  getLink,
  listLinks,
  makeNetns,
  NETLINK_ROUTE,
  type NetlinkSocket,
  netlinkMessages,
  openNetlink,
  setLinkUp,
} from "../../linux/index.ts";
import { createFirewall, removeLink } from "../../network/index.ts";
import type { ContainerRecord, Engine, NetworksFace } from "../context.ts";
import type { Call, Route } from "../route.ts";
import { createNetworks, routes } from "./index.ts";

const missing = ["nft", "nsenter", "busybox"].filter((program) => !Bun.which(program));
const skip = missing.length > 0 || process.getuid?.() !== 0;
if (skip) console.warn(`networks.test: skipped, needs root and ${missing.join(", ") || "nothing else"}`);
const it = test.skipIf(skip);

const BRIDGE = "jubakot0";
const dir = mkdtempSync("/tmp/jubako-networks-");
const route: NetlinkSocket = openNetlink(NETLINK_ROUTE);
const events: string[] = [];
const records = new Map<string, ContainerRecord>();
const pids = new Map<string, number>();
const processes: ChildProcess[] = [];
let sequence = 0;

function newEngine(db: DatabaseSync): { engine: Engine; stop(): void } {
  const ending = new AbortController();
  const get = (ref: string) => {
    const found = records.get(ref) ?? [...records.values()].find((r) => r.name === ref || r.id.startsWith(ref));
    if (!found) throw notFound(`No such container: ${ref}`);
    return found;
  };
  const engine = {
    config: {
      bridge: BRIDGE,
      bip: "10.213.0.1/20",
      dns: [],
      dnsOptions: [],
      dnsSearch: [],
      dataRoot: dir,
      execRoot: dir,
      warmNetworks: 2,
    },
    db,
    id: "0123456789abcdef",
    containers: {
      get,
      list: () => [...records.values()],
      pid: (id: string) => pids.get(id) ?? 0,
      update(id: string, change: (r: ContainerRecord) => void) {
        const record = get(id);
        change(record);
        return record;
      },
    },
    events: { publish: (type: string, action: string) => events.push(`${type} ${action}`) },
    log: () => {},
    signal: ending.signal,
  } as unknown as Engine;
  return { engine, stop: () => ending.abort() };
}

let current: { engine: Engine; stop(): void };
let networks: NetworksFace;
let api: Route[];

function start(db = new DatabaseSync(`${dir}/db`)): void {
  current = newEngine(db);
  networks = createNetworks(current.engine);
  current.engine.networks = networks;
  api = routes(current.engine);
}

async function call(
  method: string,
  path: string,
  body?: unknown,
  query = "",
  version = 51,
): Promise<{ status: number; json: ReturnType<typeof JSON.parse> }> {
  for (const r of api) {
    const pattern = new RegExp(`^${r.path.replace(/\{(\w+)\}/g, "(?<$1>[^/]+)")}$`);
    const match = r.method === method && !(path === "/networks/create" && r.path === "/networks/{id}") && pattern.exec(path);
    if (!match) continue;
    const answer = (await r.handle({
      params: { ...match.groups },
      query: new URLSearchParams(query),
      version,
      json: async () => body,
    } as unknown as Call)) as { status?: number; json?: unknown };
    return { status: answer.status ?? 200, json: answer.json };
  }
  throw new Error(`no route ${method} ${path}`);
}

function newRecord(name: string, hostConfig: Partial<HostConfig> = {}, config: object = {}): ContainerRecord {
  const id = (++sequence).toString(16).padStart(64, "f00d");
  const directory = `${dir}/${id}`;
  mkdirSync(directory, { recursive: true });
  const record = {
    id,
    name,
    dir: directory,
    config: { Hostname: id.slice(0, 12), ...config },
    hostConfig: { NetworkMode: "bridge", ...hostConfig },
    networks: {},
    networkSettings: {},
  } as unknown as ContainerRecord;
  records.set(id, record);
  return record;
}

/** A "container": a process in the namespace that attach made. */
async function run(
  name: string,
  options: { host?: Partial<HostConfig>; config?: object; endpoints?: Record<string, EndpointSettings>; command?: string } = {},
): Promise<ContainerRecord> {
  const record = newRecord(name, options.host, options.config);
  await networks.check(record, options.endpoints);
  const attachment = await networks.attach(record);
  const inside = attachment.netns ? [`--net=${attachment.netns}`] : [];
  const child = spawn("nsenter", [...inside, "busybox", "sh", "-c", options.command ?? "exec busybox sleep 1000"], {
    stdio: "ignore",
    detached: true,
  });
  processes.push(child);
  pids.set(record.id, child.pid!);
  await Bun.sleep(60);
  await networks.started(record.id, child.pid!);
  return record;
}

async function end(record: ContainerRecord): Promise<void> {
  const pid = pids.get(record.id);
  const child = processes.find((c) => c.pid === pid);
  if (child && child.exitCode === null && child.signalCode === null) {
    const gone = new Promise((resolve) => child.once("exit", resolve));
    process.kill(-child.pid!, "SIGKILL");
    await gone;
  }
  pids.delete(record.id);
  records.delete(record.id);
  await networks.detach(record);
}

/** Output of a shell command, on stderr too where it failed. Not synchronously: the resolver answers from this very process. */
function sh(command: string, netns?: string): Promise<string> {
  const child = netns ? spawn("nsenter", [`--net=${netns}`, "sh", "-c", command]) : spawn("sh", ["-c", command]);
  let out = "";
  let err = "";
  child.stdout.on("data", (chunk) => (out += chunk));
  child.stderr.on("data", (chunk) => (err += chunk));
  return new Promise((resolve) => child.on("close", (code) => resolve(out + (code === 0 ? "" : err))));
}
const netns = (record: ContainerRecord) => `/proc/${pids.get(record.id)}/ns/net`;
const web = (text: string) => `while :; do printf 'HTTP/1.0 200 OK\\r\\n\\r\\n${text}' | busybox nc -l -p 80 >/dev/null; done`;
const get = async (url: string, from?: string) => (await sh(`timeout 2 busybox wget -qO- ${url} 2>&1`, from)).trim();
const lookup = (name: string, from: string) => sh(`timeout 4 busybox nslookup ${name} 127.0.0.11 2>&1`, from);
/** Links of this test's engine: pairs on its bridges, and bridges other than the default one. Other engines may be at work on the same host. */
function ours(): string[] {
  const links = listLinks(route);
  const bridges = links.filter((l) => l.kind === "bridge" && (l.name === BRIDGE || l.alias === alias));
  return links
    .filter((l) => (l.kind === "veth" && bridges.some((b) => b.index === l.master)) || (l.alias === alias && l.name !== BRIDGE))
    .map((l) => l.name);
}
async function until(condition: () => boolean): Promise<void> {
  for (let i = 0; i < 100 && !condition(); i++) await Bun.sleep(30);
  expect(condition()).toBe(true);
}

/** A host of its own, linked to this one: what comes from there comes from outside. */
function outsideHost(): { netns: string; host: string; close(): Promise<void> } {
  let inner!: NetlinkSocket;
  const fd = makeNetns(() => {
    inner = openNetlink(NETLINK_ROUTE);
  });
  const m = netlinkMessages();
  addVeth(m, { name: "jubakoout0", master: undefined, mtu: 1500, peer: { name: "eth0", index: 2, netns: fd, address: undefined } });
  route.request(m);
  const n = netlinkMessages();
  addAddress(n, { index: getLink(route, { name: "jubakoout0" }).index, local: Uint8Array.of(10, 213, 240, 1), prefix: 30 });
  route.request(n);
  const o = netlinkMessages();
  setLinkUp(o, { index: 1 });
  setLinkUp(o, { index: 2 });
  addAddress(o, { index: 2, local: Uint8Array.of(10, 213, 240, 2), prefix: 30 });
  addRoute(o, { family: 2, gateway: Uint8Array.of(10, 213, 240, 1), index: 2 });
  inner.request(o);
  inner.close();
  return {
    netns: `/proc/${process.pid}/fd/${fd}`,
    host: "10.213.240.1",
    async close() {
      close(fd);
      await removeLink("jubakoout0");
    },
  };
}

let alias = "";
let outside: ReturnType<typeof outsideHost>;
let forwarding = "0";

beforeAll(async () => {
  if (skip) return;
  forwarding = readFileSync("/proc/sys/net/ipv4/ip_forward", "utf8");
  start();
  await networks.restore([]);
  alias = getLink(route, { name: BRIDGE }).alias!;
  outside = outsideHost();
});

afterEach(async () => {
  for (const record of [...records.values()]) await end(record);
  processes.splice(0);
});

afterAll(async () => {
  if (skip) return;
  await outside.close();
  for (const network of (await call("GET", "/networks")).json)
    if (network.Driver === "bridge" && network.Name !== "bridge") await call("DELETE", `/networks/${network.Id}`);
  await until(() => ours().length === 0);
  current.stop();
  await removeLink(BRIDGE);
  for (const line of (await sh("nft list tables")).split("\n")) {
    const name = line.split(" ")[2];
    if (!name?.startsWith("jubako-") || !(await sh(`nft list table inet ${name}`)).includes(BRIDGE)) continue;
    const firewall = createFirewall(name);
    firewall.remove();
    firewall.close();
  }
  await Bun.write("/proc/sys/net/ipv4/ip_forward", forwarding);
  route.close();
  rmSync(dir, { recursive: true, force: true });
});

it("a container on the default bridge has address, route, files, and its gateway answers", async () => {
  const record = await run("one", { host: { ExtraHosts: ["db:10.0.0.9", "gw:host-gateway"] } });
  expect(record.networks.bridge).toMatchObject({
    IPAddress: "10.213.0.2",
    IPPrefixLen: 20,
    Gateway: "10.213.0.1",
    MacAddress: "02:42:0a:d5:00:02",
  });
  expect(record.networkSettings).toMatchObject({ IPAddress: "10.213.0.2", Ports: {} });
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
    { HostIp: "127.0.0.1", HostPort: "18081" },
  ]);
  const where: [string, string | undefined][] = [
    [`http://${outside.host}:18080/`, outside.netns],
    ["http://127.0.0.1:18080/", undefined],
    ["http://127.0.0.1:18081/", undefined],
    ["http://localhost:18080/", undefined],
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
  expect(ports["91/tcp"]).toEqual([{ HostIp: "0.0.0.0", HostPort: "18091" }]);
  expect(Number(ports["92/tcp"]![0]!.HostPort)).toBeGreaterThan(1024);
  expect(ports["99/tcp"]).toBeNull();
  const second = await run("udp2", { host: { PortBindings: { "91/tcp": [{ HostPort: "18091-18093" }] } } });
  expect(second.networkSettings.Ports!["91/tcp"]).toEqual([{ HostIp: "0.0.0.0", HostPort: "18092" }]);
  const socket = createSocket("udp4");
  let echo = "";
  socket.on("message", (message) => {
    echo = message.toString();
  });
  await until(() => {
    socket.send("ping", 18090, "127.0.0.1");
    return echo === "ping";
  });
  socket.close();
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
    records.delete(record.id);
    expect(record.networks.bridge!.IPAddress).toBe("");
    return error;
  };
  expect(await failing("18100")).toMatch(
    /^driver failed programming external connectivity on endpoint failing \([0-9a-f]{64}\): Bind for 0.0.0.0:18100 failed: port is already allocated$/,
  );
  expect(await failing(String(held.port))).toMatch(
    new RegExp(`^driver failed .*: failed to bind host port 0\\.0\\.0\\.0:${held.port}/tcp: address already in use$`),
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
  const client = await run("client", { host: { NetworkMode: "jubako-a" } });
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

  await call("POST", "/networks/jubako-a/disconnect", { Container: "stranger" });
  expect(stranger.networks["jubako-a"]).toBeUndefined();
  expect(await sh("ip -o link", netns(stranger))).not.toContain("eth1");
  expect(await sh("ip route", netns(stranger))).toContain("default via 10.213.33.9");
  for (const record of [server, client, stranger]) await end(record);
  await call("DELETE", `/networks/${Id.slice(0, 12)}`);
  expect((await call("POST", "/networks/prune")).json.NetworksDeleted).toEqual(["jubako-b"]);
  await expect(call("GET", "/networks/jubako-a")).rejects.toThrow("network jubako-a not found");
  await until(() => ours().length === 0);
});
