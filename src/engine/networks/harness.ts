// For tests: the networks resource against the real kernel, without an engine around it.
import { test } from "bun:test";
import { type ChildProcess, spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, readlinkSync, rmSync, writeFileSync } from "node:fs";
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
import type { ContainerRecord, Engine, EngineConfig, NetworksFace } from "../context.ts";
import type { Call, Route } from "../route.ts";
import { createNetworks, routes } from "./index.ts";

/**
 * Whether this test file runs in a network namespace of its own, where nobody else's engine, firewall or address is in the way. Where it does not,
 * registers one test that runs the file so.
 */
export function isolated(path: string): boolean {
  if (process.env.JUBAKO_TEST_NETNS) return true;
  const why = unable();
  test.skipIf(why !== undefined)(
    `in a network namespace of its own${why ? ` (${why})` : ""}`,
    async () => {
      const child = spawn("unshare", ["--net", process.execPath, "test", "--timeout", "20000", path], {
        env: { ...process.env, JUBAKO_TEST_NETNS: "1" },
      });
      let output = "";
      for (const stream of [child.stdout, child.stderr])
        stream.on("data", (chunk) => {
          output += chunk;
        });
      const code = await new Promise((resolve) => child.on("close", resolve));
      if (code !== 0) throw new Error(output);
    },
    120_000,
  );
  return false;
}

/** Why the tests cannot run here; undefined where they can. */
export function unable(): string | undefined {
  const missing = ["nft", "nsenter", "unshare", "busybox"].filter((program) => !Bun.which(program));
  if (process.getuid?.() !== 0) return "needs root";
  return missing.length > 0 ? `needs ${missing.join(", ")}` : undefined;
}

export async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  for (let i = 0; i < 100 && !(await condition()); i++) await Bun.sleep(30);
  if (!(await condition())) throw new Error(`did not come true: ${condition}`);
}

/** A web server's command line: it answers with this text. */
export function web(text: string): string {
  const directory = `/tmp/jubako-www-${text}`;
  return `busybox mkdir -p ${directory}; printf ${text} > ${directory}/index.html; exec busybox httpd -f -p 80 -h ${directory}`;
}

export const PLAIN_BRIDGE: EngineConfig["defaultNetwork"] = {
  ipv6: false,
  fixedCidr: undefined,
  fixedCidrV6: undefined,
  mtu: 1500,
  icc: true,
  masquerade: true,
  hostBinding: "0.0.0.0",
};

export type Harness = ReturnType<typeof createHarness>;

/** A networks resource on a bridge of its own, with everything around it made up: records in memory, containers that are plain processes. */
export function createHarness(BRIDGE: string, bip: string, changes: Partial<EngineConfig> = {}) {
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
        bip,
        defaultNetwork: PLAIN_BRIDGE,
        hostGateways: [],
        ipForward: true,
        dns: [],
        dnsOptions: [],
        dnsSearch: [],
        dataRoot: dir,
        execRoot: dir,
        warmNetworks: 2,
        ...changes,
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

  const current = newEngine(new DatabaseSync(`${dir}/db`));
  const networks: NetworksFace = createNetworks(current.engine);
  current.engine.networks = networks;
  const api: Route[] = routes(current.engine);
  let alias = "";
  let forwarding = "0";

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
    // nsenter has gone where it should, and a server listens
    await until(
      () => record.hostConfig.NetworkMode === "host" || readlinkSync(`/proc/${child.pid}/ns/net`) === readlinkSync(attachment.netns!),
    );
    if (options.command?.includes("httpd"))
      await until(() => ["tcp", "tcp6"].some((kind) => readFileSync(`/proc/${child.pid}/net/${kind}`, "utf8").includes(":0050 ")));
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
  /** A host of its own, linked to this one: what comes from there comes from outside. */
  const out = `${BRIDGE}-out`.slice(0, 15);
  function outsideHost(): { netns: string; host: string; close(): Promise<void> } {
    let inner!: NetlinkSocket;
    const fd = makeNetns(() => {
      inner = openNetlink(NETLINK_ROUTE);
    });
    const m = netlinkMessages();
    addVeth(m, { name: out, master: undefined, mtu: 1500, peer: { name: "eth0", netns: fd, address: undefined } });
    route.request(m);
    const n = netlinkMessages();
    addAddress(n, { index: getLink(route, { name: out }).index, local: Uint8Array.of(10, 213, 240, 1), prefix: 30 });
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
        await removeLink(out);
      },
    };
  }

  return {
    dir,
    route,
    events,
    networks,
    records,
    pids,
    bridge: BRIDGE,
    call,
    newRecord,
    run,
    end,
    sh,
    netns,
    get,
    lookup,
    ours,
    outsideHost,
    async open() {
      const m = netlinkMessages(64);
      setLinkUp(m, { index: 1 });
      route.request(m);
      forwarding = readFileSync("/proc/sys/net/ipv4/ip_forward", "utf8");
      await networks.restore([]);
      alias = getLink(route, { name: BRIDGE }).alias ?? "";
    },
    async endAll() {
      for (const record of [...records.values()]) await end(record);
      processes.splice(0);
    },
    async close() {
      for (const network of (await call("GET", "/networks")).json)
        if (network.Driver === "bridge" && network.Name !== "bridge") await call("DELETE", `/networks/${network.Id}`);
      await until(() => ours().length === 0);
      current.stop();
      await removeLink(BRIDGE);
      const firewall = createFirewall(alias.replace("jubako ", ""));
      firewall.remove();
      firewall.close();
      writeFileSync("/proc/sys/net/ipv4/ip_forward", forwarding);
      route.close();
      rmSync(dir, { recursive: true, force: true });
    },
  };
}
