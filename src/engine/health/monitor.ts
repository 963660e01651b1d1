// The health monitor: runs a container's probe again and again, and says what came of it in State.Health.
//
//   starting ──probe ok──▶ healthy ◀──ok──┐
//      └──retries failures──▶ unhealthy ──┘      failures within the start period do not count
import { randomBytes } from "node:crypto";
import type { HealthConfig, HealthcheckResult } from "../../api/types.ts";
import { messageOf } from "../../lib/errors.ts";
import type { ContainerRecord, Engine } from "../context.ts";
import { execProcess } from "../exec/process.ts";
import { containerProcess, execFailure, runExec } from "../exec/run.ts";
import { createStreams } from "../io/streams.ts";
import { formatNano, nanoNow } from "../logs/time.ts";

export interface HealthMonitors {
  start(id: string): void;
  stop(id: string): void;
}

const MS = 1_000_000;
const KEPT_RESULTS = 5;
const KEPT_OUTPUT = 4096;

export interface Schedule {
  args: string[];
  intervalMs: number;
  timeoutMs: number;
  startPeriodMs: number;
  startIntervalMs: number;
  retries: number;
}

/** What to run and when; undefined where there is no probe. Zero means the default, as in the API. */
export function schedule(config: HealthConfig | undefined, shell: string[] | null | undefined): Schedule | undefined {
  const [kind, ...args] = config?.Test ?? [];
  if (kind !== "CMD" && kind !== "CMD-SHELL") return undefined;
  const ms = (nanoseconds: number | undefined, otherwise: number) => (nanoseconds ? nanoseconds / MS : otherwise);
  return {
    args: kind === "CMD" ? args : [...(shell && shell.length > 0 ? shell : ["/bin/sh", "-c"]), ...args],
    intervalMs: ms(config?.Interval, 30_000),
    timeoutMs: ms(config?.Timeout, 30_000),
    startPeriodMs: ms(config?.StartPeriod, 0),
    startIntervalMs: ms(config?.StartInterval, 5_000),
    retries: config?.Retries || 3,
  };
}

/** A duration as Go prints it, for whole seconds and milliseconds. */
function goDuration(ms: number): string {
  if (ms < 1000) return `${ms}ms`;
  const hours = Math.floor(ms / 3_600_000);
  const minutes = Math.floor((ms % 3_600_000) / 60_000);
  return `${hours > 0 ? `${hours}h` : ""}${hours > 0 || minutes > 0 ? `${minutes}m` : ""}${(ms % 60_000) / 1000}s`;
}

type Health = NonNullable<ContainerRecord["state"]["Health"]>;

/** The state after a result. Pure. */
export function judge(health: Health, result: HealthcheckResult, plan: Schedule, sinceStartMs: number): Health {
  const log = [...(health.Log ?? []), result].slice(-KEPT_RESULTS);
  if (result.ExitCode === 0) return { Status: "healthy", FailingStreak: 0, Log: log };
  const counts = !(health.Status === "starting" && sinceStartMs < plan.startPeriodMs);
  const streak = (health.FailingStreak ?? 0) + (counts ? 1 : 0);
  return { Status: counts && streak >= plan.retries ? "unhealthy" : (health.Status ?? "starting"), FailingStreak: streak, Log: log };
}

export function createHealth(engine: Engine): HealthMonitors {
  const monitors = new Map<string, { timer: NodeJS.Timeout | undefined; over: boolean }>();

  async function probe(record: ContainerRecord, plan: Schedule): Promise<{ exitCode: number; output: string }> {
    const streams = createStreams();
    const execId = randomBytes(32).toString("hex");
    let output = Buffer.alloc(0);
    let truncated = false;
    streams.hub.add({
      stdout: true,
      stderr: true,
      write(_stream, bytes) {
        const room = KEPT_OUTPUT - output.length;
        if (bytes.length > room) truncated = true;
        if (room > 0) output = Buffer.concat([output, bytes.subarray(0, room)]);
      },
      pending: () => 0,
      onDrain() {},
      end() {},
    });
    const text = () => output.toString() + (truncated ? "..." : "");
    const publish = (action: string, more: Record<string, string> = {}) =>
      engine.events.publish("container", action, record.id, { ...engine.events.containerAttributes(record), execID: execId, ...more });
    publish(`exec_create: ${plan.args.join(" ")}`);
    const request = { args: plan.args, env: [], user: "", workingDir: "", privileged: false, terminal: false, size: undefined };
    let timer: NodeJS.Timeout | undefined;
    try {
      const process = await execProcess(engine, record, await containerProcess(engine, record.id), request);
      const run = await runExec(engine, { containerId: record.id, execId, process, streams, stdin: false, output: true });
      publish(`exec_start: ${plan.args.join(" ")}`);
      const late = new Promise<"late">((resolve) => {
        timer = setTimeout(() => resolve("late"), plan.timeoutMs);
      });
      const status = await Promise.race([run.exited, late]);
      if (status !== "late") {
        publish("exec_die", { exitCode: String(status) });
        return { exitCode: status, output: text() };
      }
      await engine.manager.tasks.kill({ containerId: record.id, execId, signal: 9 }).catch(() => {});
      await run.exited.catch(() => {});
      publish("exec_die", { exitCode: "137" });
      const said = text();
      return { exitCode: -1, output: `Health check exceeded timeout (${goDuration(plan.timeoutMs)})${said ? `: ${said}` : ""}` };
    } catch (error) {
      return { exitCode: -1, output: execFailure(error).failure.message };
    } finally {
      clearTimeout(timer);
    }
  }

  function start(id: string): void {
    stop(id);
    const record = engine.containers.get(id);
    const plan = schedule(record.config.Healthcheck, record.config.Shell);
    if (!plan) return;
    const monitor = { timer: undefined as NodeJS.Timeout | undefined, over: false };
    monitors.set(id, monitor);
    const startedAt = Date.parse(record.state.StartedAt ?? "") || Date.now();
    // After a restart of the engine the container is as healthy as it was.
    const known = record.state.Health;
    const lastStart = Date.parse(known?.Log?.at(-1)?.Start ?? "");
    let health: Health =
      known?.Status && known.Status !== "none" && lastStart >= startedAt ? known : { Status: "starting", FailingStreak: 0, Log: [] };
    if (health !== known) record.state.Health = health;

    const tick = async () => {
      const current = engine.containers.get(id);
      if (!current.state.Paused) {
        const begin = nanoNow();
        const { exitCode, output } = await probe(current, plan);
        if (monitor.over) return;
        const result: HealthcheckResult = { Start: formatNano(begin), End: formatNano(nanoNow()), ExitCode: exitCode, Output: output };
        const before = health.Status;
        health = judge(health, result, plan, Number(begin / 1_000_000n) - startedAt);
        // Only a change is worth a write to the database; the log of results is not.
        if (health.Status === before) engine.containers.get(id).state.Health = health;
        else {
          const changed = engine.containers.update(id, (r) => {
            r.state.Health = health;
          });
          engine.events.publish("container", `health_status: ${health.Status}`, id, engine.events.containerAttributes(changed));
        }
      }
      next();
    };
    const next = () => {
      if (monitor.over) return;
      const inStart = health.Status === "starting" && Date.now() - startedAt < plan.startPeriodMs;
      monitor.timer = setTimeout(
        () => {
          tick().catch((error) => {
            engine.log("warn", "health check failed to run", { container: id, error: messageOf(error) });
            next();
          });
        },
        inStart ? plan.startIntervalMs : plan.intervalMs,
      );
      monitor.timer.unref();
    };
    next();
  }

  function stop(id: string): void {
    const monitor = monitors.get(id);
    if (!monitor) return;
    monitor.over = true;
    clearTimeout(monitor.timer);
    monitors.delete(id);
  }

  engine.signal.addEventListener("abort", () => {
    for (const id of [...monitors.keys()]) stop(id);
  });
  return { start, stop };
}
