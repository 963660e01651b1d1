import type { ContainerStatsResponse } from "../../api/types.ts";
import type { Client } from "../../client/index.ts";
import { any, type Cli, command, StatusError } from "../command.ts";
import { bool, string } from "../flags.ts";
import { formatList, type ListFormat } from "../formatter.ts";
import { daemonMessage } from "../index.ts";
import { bytesSize, humanSize } from "../units.ts";
import { FORMAT_HELP } from "./ps.ts";

export default command({
  use: "[OPTIONS] [CONTAINER...]",
  short: "Display a live stream of container(s) resource usage statistics",
  args: any,
  flags: {
    all: bool("a", "Show all containers (default shows just running)"),
    format: string("", FORMAT_HELP()),
    "no-stream": bool("", "Disable streaming stats and only pull the first result"),
    "no-trunc": bool("", "Do not truncate output"),
  },
  async run(cli, flags, args) {
    const client = await cli.client();
    const format = flags.format || cli.config.statsFormat || "";
    const list = statsList(!flags["no-trunc"]);
    const rows = new Map<string, Row>();
    const abort = new AbortController();
    const failures: string[] = [];
    const running: Promise<void>[] = [];
    const add = (ref: string) => {
      if (rows.has(ref)) return;
      const row: Row = { container: ref, state: "waiting" };
      rows.set(ref, row);
      running.push(
        collect(client, row, !flags["no-stream"], abort.signal).catch((error: unknown) => {
          rows.delete(ref);
          if (!abort.signal.aborted) failures.push(daemonMessage(error));
        }),
      );
    };
    const names = args.length > 0 ? args : (await client.containers.list({ all: flags.all })).map((c) => (c.Id ?? "").slice(0, 12));
    for (const name of names) add(name);
    if (flags["no-stream"]) {
      await Promise.all(running);
      if (args.length > 0 && failures.length > 0) throw new StatusError(1, failures.join("\n"));
      cli.out(formatList(list, [...rows.values()], { format }));
      return 0;
    }
    if (args.length === 0) void follow(client, flags.all, add, (id) => rows.delete(id.slice(0, 12)), abort.signal);
    return live(cli, list, format, rows, args.length > 0, failures, abort);
  },
});

interface Row {
  container: string;
  state: "waiting" | "known";
  stats?: ContainerStatsResponse;
}

async function collect(client: Client, row: Row, stream: boolean, signal: AbortSignal): Promise<void> {
  for await (const stats of await client.containers.stats(row.container, { stream }, signal)) {
    row.stats = stats;
    row.state = "known";
  }
}

/** Containers that start or end meanwhile. */
async function follow(
  client: Client,
  all: boolean,
  add: (id: string) => void,
  remove: (id: string) => void,
  signal: AbortSignal,
): Promise<void> {
  const { jsonLines } = await import("../../client/index.ts");
  const actions = all ? ["create", "destroy"] : ["start", "die", "create", "destroy"];
  try {
    const response = await client.system.events({ filters: { type: ["container"], event: actions } }, signal);
    for await (const event of jsonLines<{ Action?: string; Actor?: { ID?: string } }>(response)) {
      const id = event.Actor?.ID ?? "";
      if (event.Action === "start" || (all && event.Action === "create")) add(id.slice(0, 12));
      else if (event.Action === "die" || event.Action === "destroy") remove(id);
    }
  } catch {
    // The statistics themselves will say that the engine is gone.
  }
}

/** Draws over itself twice a second until the user stops it, or nothing named is left. */
async function live(
  cli: Cli,
  list: ListFormat<Row>,
  format: string,
  rows: Map<string, Row>,
  named: boolean,
  failures: string[],
  abort: AbortController,
): Promise<number> {
  const terminal = cli.isTty(1);
  for (let first = true; ; first = false) {
    await new Promise((resolve) => setTimeout(resolve, first ? 100 : 500));
    if (named && failures.length > 0) {
      abort.abort();
      throw new StatusError(1, failures.join("\n"));
    }
    if (first && [...rows.values()].some((row) => row.state === "waiting"))
      await Promise.race([settled(rows), new Promise((resolve) => setTimeout(resolve, 2000))]);
    const text = formatList(list, [...rows.values()], { format });
    cli.out(terminal ? `\x1b[H${text.replaceAll("\n", "\x1b[K\n")}\x1b[J` : text);
    if (named && rows.size === 0) return 0;
  }
}

async function settled(rows: Map<string, Row>): Promise<void> {
  while ([...rows.values()].some((row) => row.state === "waiting")) await new Promise((resolve) => setTimeout(resolve, 50));
}

function usedMemory(stats: ContainerStatsResponse): number {
  const memory = stats.memory_stats ?? {};
  const usage = memory.usage ?? 0;
  // cgroup v1 names it total_inactive_file, v2 inactive_file: cache that the kernel may take back is not counted.
  const cache = memory.stats?.total_inactive_file ?? memory.stats?.inactive_file ?? 0;
  return cache < usage ? usage - cache : usage;
}

function cpuPercent(stats: ContainerStatsResponse): number {
  const now = stats.cpu_stats;
  const before = stats.precpu_stats;
  const delta = (now?.cpu_usage?.total_usage ?? 0) - (before?.cpu_usage?.total_usage ?? 0);
  const system = (now?.system_cpu_usage ?? 0) - (before?.system_cpu_usage ?? 0);
  const cpus = now?.online_cpus || now?.cpu_usage?.percpu_usage?.length || 0;
  return delta > 0 && system > 0 ? (delta / system) * cpus * 100 : 0;
}

function network(stats: ContainerStatsResponse): [number, number] {
  const all = Object.values(stats.networks ?? {});
  return [all.reduce((n, i) => n + (i.rx_bytes ?? 0), 0), all.reduce((n, i) => n + (i.tx_bytes ?? 0), 0)];
}

function blocks(stats: ContainerStatsResponse): [number, number] {
  let [read, write] = [0, 0];
  for (const entry of stats.blkio_stats?.io_service_bytes_recursive ?? []) {
    const first = (entry.op ?? "").charAt(0).toLowerCase();
    if (first === "r") read += entry.value ?? 0;
    else if (first === "w") write += entry.value ?? 0;
  }
  return [read, write];
}

function statsList(truncate: boolean): ListFormat<Row> {
  const known =
    (fn: (stats: ContainerStatsResponse) => string, otherwise = "--") =>
    (row: Row) =>
      row.stats ? fn(row.stats) : otherwise;
  const pair = ([a, b]: [number, number]) => `${humanSize(a, 3)} / ${humanSize(b, 3)}`;
  return {
    type: "*container.statsContext",
    table: "{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}",
    columns: {
      Container: { header: "CONTAINER", value: (row) => row.container },
      Name: { header: "NAME", value: known((s) => (s.name ?? "").replace(/^\//, "") || "--") },
      ID: { header: "CONTAINER ID", value: known((s) => (truncate ? (s.id ?? "").slice(0, 12) : (s.id ?? ""))) },
      CPUPerc: { header: "CPU %", value: known((s) => `${cpuPercent(s).toFixed(2)}%`) },
      MemUsage: {
        header: "MEM USAGE / LIMIT",
        value: known((s) => `${bytesSize(usedMemory(s))} / ${bytesSize(s.memory_stats?.limit ?? 0)}`, "-- / --"),
      },
      MemPerc: {
        header: "MEM %",
        value: known((s) => `${(s.memory_stats?.limit ? (usedMemory(s) / s.memory_stats.limit) * 100 : 0).toFixed(2)}%`),
      },
      NetIO: { header: "NET I/O", value: known((s) => pair(network(s))) },
      BlockIO: { header: "BLOCK I/O", value: known((s) => pair(blocks(s))) },
      PIDs: { header: "PIDS", value: known((s) => String(s.pids_stats?.current ?? 0)) },
    },
  };
}
