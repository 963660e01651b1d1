// GET /containers/{id}/stats and /top: what a container's processes use, and which they are.
import type { ContainerStatsResponse } from "../../api/types.ts";
import type { ContainerRecord, Engine } from "../context.ts";
import { formatNano, nanoNow } from "../logs/time.ts";
import { type Call, flag, type Route } from "../route.ts";
import { topRoutes } from "../top/index.ts";
import { machineMemory, networkStats, onlineCpus, systemCpuUsage } from "./host.ts";
import { type CpuStats, cpuStats, NO_CPU, readMetrics } from "./metrics.ts";

const NEVER = "0001-01-01T00:00:00Z";
const INTERVAL_MS = 1000;

interface Before {
  read: string;
  cpu: CpuStats;
}

function empty(record: ContainerRecord): ContainerStatsResponse {
  return {
    id: record.id,
    name: `/${record.name}`,
    read: NEVER,
    preread: NEVER,
    pids_stats: {},
    blkio_stats: {},
    num_procs: 0,
    storage_stats: {},
    cpu_stats: NO_CPU,
    precpu_stats: NO_CPU,
    memory_stats: {},
  };
}

/** The interfaces that belong to the container: none of the host's, those of the other one where it shares. */
function networks(engine: Engine, record: ContainerRecord): ContainerStatsResponse["networks"] {
  if (record.hostConfig.NetworkMode === "host") return undefined;
  const found = networkStats(engine.containers.pid(record.id));
  return found && Object.keys(found).length > 0 ? found : undefined;
}

/** One sample; `undefined` where the container does not run (any more). */
async function measure(
  engine: Engine,
  id: string,
  before: Before | undefined,
): Promise<{ response: ContainerStatsResponse; before: Before } | undefined> {
  const record = engine.containers.get(id);
  if (!record.state.Running || record.state.Restarting) return undefined;
  const { metrics } = await engine.manager.tasks.metrics({ filters: [`id==${id}`] });
  const sample = readMetrics(metrics[0]?.data, machineMemory());
  if (!sample) return undefined;
  const read = formatNano(nanoNow());
  const cpu = cpuStats(sample, systemCpuUsage(), onlineCpus());
  const attached = networks(engine, record);
  const response: ContainerStatsResponse = {
    ...empty(record),
    read,
    preread: before?.read ?? NEVER,
    pids_stats: sample.pids,
    blkio_stats: sample.blkio,
    cpu_stats: cpu,
    precpu_stats: before?.cpu ?? NO_CPU,
    memory_stats: sample.memory,
    ...(attached ? { networks: attached } : {}),
  };
  return { response, before: { read, cpu } };
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal.addEventListener("abort", done);
  });
}

async function* follow(engine: Engine, id: string, signal: AbortSignal): AsyncGenerator<string> {
  let before: Before | undefined;
  while (!signal.aborted) {
    let record: ContainerRecord;
    try {
      record = engine.containers.get(id);
    } catch {
      return;
    }
    const measured = await measure(engine, id, before).catch(() => undefined);
    before = measured?.before;
    yield `${JSON.stringify(measured?.response ?? empty(record))}\n`;
    await pause(INTERVAL_MS, signal);
  }
}

async function once(engine: Engine, call: Call, id: string): Promise<ContainerStatsResponse> {
  const first = await measure(engine, id, undefined);
  if (!first) return empty(engine.containers.get(id));
  if (flag(call.query, "one-shot")) return first.response;
  await pause(INTERVAL_MS, call.signal);
  return ((await measure(engine, id, first.before)) ?? first).response;
}

export function routes(engine: Engine): Route[] {
  return [
    {
      method: "GET",
      path: "/containers/{id}/stats",
      async handle(call) {
        const { id } = engine.containers.get(call.params.id!);
        if (!flag(call.query, "stream", true)) return { json: await once(engine, call, id) };
        const signal = AbortSignal.any([call.signal, engine.signal]);
        return { type: "application/json", stream: follow(engine, id, signal) };
      },
    },
    ...topRoutes(engine),
  ];
}
