// The engine is killed while containers run and others are just being attached; its successor finds everything again, and nothing is left over.
import { afterAll, expect, test } from "bun:test";
import { type ChildProcess, spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { DatabaseSync } from "node:sqlite";
import { getLink, listLinks, NETLINK_ROUTE, netlinkMessages, openNetlink, setLinkUp } from "../../linux/index.ts";
import { createFirewall, findLink, removeLink } from "../../network/index.ts";
import type { ContainerRecord, Engine } from "../context.ts";
import type { Call } from "../route.ts";
import { isolated, PLAIN_BRIDGE } from "./harness.ts";
import { createNetworks, routes } from "./index.ts";

const BRIDGE = "jubakot4";

function engineOf(dir: string, records: Map<string, ContainerRecord>, pids: Map<string, number>): { engine: Engine; stop(): void } {
  const ending = new AbortController();
  const engine = {
    config: {
      bridge: BRIDGE,
      bip: "10.213.64.1/24",
      defaultNetwork: PLAIN_BRIDGE,
      hostGateways: [],
      ipForward: true,
      dns: [],
      dnsOptions: [],
      dnsSearch: [],
      dataRoot: dir,
      execRoot: dir,
      warmNetworks: 2,
    },
    db: new DatabaseSync(`${dir}/db`),
    id: "abcdef",
    containers: { pid: (id: string) => pids.get(id) ?? 0, list: () => [...records.values()], get: (id: string) => records.get(id)! },
    events: { publish() {} },
    log() {},
    signal: ending.signal,
  } as unknown as Engine;
  return { engine, stop: () => ending.abort() };
}

/** What the first engine does, until it is killed. */
async function firstLife(dir: string): Promise<void> {
  const { engine } = engineOf(dir, new Map(), new Map());
  const networks = createNetworks(engine);
  await networks.restore([]);
  const create = routes(engine).find((r) => r.path === "/networks/create")!;
  await create.handle({ json: async () => ({ Name: "names", IPAM: { Config: [{ Subnet: "10.213.65.0/24" }] } }) } as unknown as Call);
  for (const [i, mode] of ["bridge", "names", "names"].entries()) {
    const id = String(i + 1).padStart(64, "c");
    mkdirSync(`${dir}/${id}`);
    const record = {
      id,
      name: `c${i + 1}`,
      dir: `${dir}/${id}`,
      config: { Hostname: `c${i + 1}` },
      hostConfig: { NetworkMode: mode, PortBindings: i === 0 ? { "80/tcp": [{ HostPort: "18300" }] } : {} },
      networks: {},
      networkSettings: {},
    } as unknown as ContainerRecord;
    await networks.check(record, undefined);
    const attachment = await networks.attach(record);
    // the third never gets as far as a process
    if (i === 2) break;
    const child = spawn("nsenter", [`--net=${attachment.netns}`, "busybox", "httpd", "-f", "-p", "80", "-h", dir], {
      stdio: "ignore",
      detached: true,
    });
    await Bun.sleep(100);
    await networks.started(id, child.pid!);
    process.stdout.write(`${JSON.stringify({ record, pid: child.pid })}\n`);
  }
  process.stdout.write("ready\n");
  await new Promise(() => setInterval(() => {}, 1000));
}

async function sh(command: string): Promise<string> {
  const child = spawn("sh", ["-c", command]);
  let out = "";
  child.stdout.on("data", (chunk) => {
    out += chunk;
  });
  await new Promise((resolve) => child.on("close", resolve));
  return out;
}

if (process.argv[2] === "--first-life") await firstLife(process.argv[3]!);
else if (isolated(import.meta.path)) {
  const dir = mkdtempSync("/tmp/jubako-restore-");
  writeFileSync(`${dir}/page`, "served");
  const route = openNetlink(NETLINK_ROUTE);
  const pids = new Map<string, number>();
  const m = netlinkMessages(64);
  setLinkUp(m, { index: 1 });
  route.request(m);

  afterAll(async () => {
    for (const pid of pids.values()) {
      try {
        process.kill(pid, "SIGKILL");
      } catch {
        // gone
      }
    }
    for (const link of listLinks(route)) if (link.name === BRIDGE) await removeLink(link.name);
    route.close();
    rmSync(dir, { recursive: true, force: true });
  });

  test("kill -9 of the engine: containers keep their network, the half-made vanish, nothing is orphaned", async () => {
    const first: ChildProcess = spawn(process.execPath, [import.meta.path, "--first-life", dir], { stdio: ["ignore", "pipe", "inherit"] });
    let output = "";
    await new Promise<void>((resolve, reject) => {
      first.stdout!.on("data", (chunk) => {
        output += chunk;
        if (output.includes("ready\n")) resolve();
      });
      first.once("exit", () => reject(new Error("the first engine ended")));
    });
    const records = new Map<string, ContainerRecord>();
    for (const line of output.split("\n").filter((l) => l.startsWith("{"))) {
      const { record, pid } = JSON.parse(line) as { record: ContainerRecord; pid: number };
      records.set(record.id, record);
      pids.set(record.id, pid);
    }
    const bridge = getLink(route, { name: BRIDGE });
    const names = listLinks(route).find((l) => l.kind === "bridge" && l.alias === bridge.alias && l.name !== BRIDGE)!;
    const pairs = () => listLinks(route).filter((l) => l.master === bridge.index || l.master === names.index).length;
    expect(pairs()).toBe(3);
    const gone = new Promise((resolve) => first.once("exit", resolve));
    first.kill("SIGKILL");
    await gone;
    for (let i = 0; i < 100 && pairs() !== 2; i++) await Bun.sleep(30);
    expect(pairs()).toBe(2);
    expect(await sh("timeout 2 busybox wget -qO- http://127.0.0.1:18300/page")).toBe("served");

    // an orphan of the kind a crash in the middle of a removal leaves
    await sh(`ip link add jubakot5 type bridge; ip link set jubakot5 alias "${bridge.alias}"`);
    const second = engineOf(dir, records, pids);
    const networks = createNetworks(second.engine);
    const running = [...records.values()];
    await networks.restore(running);
    await networks.restore(running);
    for (let i = 0; i < 100 && findLink(route, "jubakot5"); i++) await Bun.sleep(30);
    expect(findLink(route, "jubakot5")).toBeUndefined();
    expect(pairs()).toBe(2);
    const table = bridge.alias!.replace("jubako ", "");
    expect((await sh(`nft list map inet ${table} ports4`)).match(/18300/g)?.length).toBe(1);
    expect(await sh("timeout 2 busybox wget -qO- http://127.0.0.1:18300/page")).toBe("served");
    const [one, two] = running;
    expect(await sh(`nsenter --net=/proc/${pids.get(two!.id)}/ns/net timeout 3 busybox nslookup c2 127.0.0.11`)).toContain("10.213.65.2");

    // a new one gets the next address, and the port is still taken
    const id = "d".repeat(64);
    mkdirSync(`${dir}/${id}`);
    const next = { ...structuredClone(one!), id, name: "next", dir: `${dir}/${id}` };
    await expect(networks.attach(next)).rejects.toThrow("Bind for 0.0.0.0:18300 failed: port is already allocated");
    next.hostConfig.PortBindings = {};
    await networks.attach(next);
    expect(next.networks.bridge!.IPAddress).toBe("10.213.64.3");
    await networks.detach(next);

    for (const record of running) {
      process.kill(pids.get(record.id)!, "SIGKILL");
      pids.delete(record.id);
      await networks.detach(record);
    }
    for (let i = 0; i < 100 && pairs() !== 0; i++) await Bun.sleep(30);
    expect(pairs()).toBe(0);
    expect(await sh(`nft list map inet ${table} ports4`)).not.toContain("18300");
    const remove = routes(second.engine).find((r) => r.method === "DELETE")!;
    await remove.handle({ params: { id: "names" } } as unknown as Call);
    expect(findLink(route, names.name)).toBeUndefined();
    second.stop();
    const firewall = createFirewall(table);
    firewall.remove();
    firewall.close();
  });
}
