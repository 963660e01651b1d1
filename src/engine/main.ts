// jubakod, the process: one instance per data root and exec root, the sockets, and the signals.
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import type { Socket } from "node:net";
import { hostname } from "node:os";
import { dirname } from "node:path";
import { COMMIT } from "../lib/build.ts";
import { failedPrecondition, messageOf } from "../lib/errors.ts";
import { binding, check, close as closeFd, O_CLOEXEC, O_CREAT, O_RDWR, open, SYS } from "../linux/index.ts";
import { createEngine } from "./compose.ts";
import { parseOptions, reloadInto, usage } from "./config.ts";
import type { EngineConfig } from "./context.ts";
import { collectingWhenIdle } from "./idle.ts";
import { type Listener, listen } from "./listen.ts";
import { createServer } from "./server.ts";
import { traceDir } from "./trace.ts";
import { VERSION } from "./version.ts";

const LOCK_EX_NB = 2 | 4;

/** Holds a directory for this process; the lock ends with the process, however it ends. */
function lockDirectory(directory: string, what: string): () => void {
  mkdirSync(directory, { recursive: true, mode: 0o711 });
  const fd = open(`${directory}/jubakod.lock`, O_RDWR | O_CREAT | O_CLOEXEC, 0o600);
  try {
    check(binding.syscall(SYS.flock, fd, LOCK_EX_NB), "flock");
  } catch {
    closeFd(fd);
    throw failedPrecondition(`another jubakod uses the ${what} ${directory}; give this one its own`);
  }
  return () => closeFd(fd);
}

function writePidfile(path: string): () => void {
  let before = Number.NaN;
  try {
    before = Number(readFileSync(path, "utf8").trim());
  } catch {
    // no pidfile yet
  }
  if (Number.isInteger(before) && before > 0 && before !== process.pid && isJubakod(before)) {
    throw failedPrecondition(`process with PID ${before} is still running; its pidfile is ${path}`);
  }
  mkdirSync(dirname(path), { recursive: true, mode: 0o755 });
  writeFileSync(path, `${process.pid}`, { mode: 0o644 });
  return () => rmSync(path, { force: true });
}

/** Whether a pid of a pidfile is still one of ours: pids are used again. */
function isJubakod(pid: number): boolean {
  try {
    return /jubakod|engine\/main/.test(readFileSync(`/proc/${pid}/cmdline`, "utf8"));
  } catch {
    return false;
  }
}

async function run(config: EngineConfig, argv: string[]): Promise<number> {
  const release: (() => void)[] = [];
  // From here on: what has been started by the time that somebody asks is to be ended, too.
  const asked = ended();
  try {
    release.push(lockDirectory(config.execRoot, "exec root"));
    release.push(lockDirectory(config.dataRoot, "data root"));
    release.push(writePidfile(config.pidfile));
    mkdirSync(traceDir(config.execRoot), { recursive: true, mode: 0o700 });
    const { engine, routes, http2, recover, shutdown, close } = await createEngine(config);
    try {
      await recover();
    } catch (error) {
      await close();
      throw error;
    }
    process.on("SIGHUP", () => {
      try {
        const changed = reloadInto(config, parseOptions(argv).config);
        engine.log("info", `reloaded configuration: ${changed.join(", ") || "nothing changed"}`);
        engine.events.publish("daemon", "reload", engine.id, { name: hostname() });
      } catch (error) {
        engine.log("error", `configuration not reloaded: ${messageOf(error)}`);
      }
    });
    const connections = new Set<Socket>();
    const answer = createServer({
      routes,
      experimental: config.experimental === true,
      traceDir: traceDir(config.execRoot),
      log: engine.log,
      http2,
    });
    const serve = collectingWhenIdle((socket) => {
      connections.add(socket);
      socket.on("close", () => connections.delete(socket));
      answer(socket);
    });
    const listeners: Listener[] = [];
    // an engine that cannot serve ends without stopping what another run of it started
    let end = close;
    try {
      for (const host of config.hosts) {
        listeners.push(await listen(host, config, serve));
        engine.log("info", `API listen on ${host}`);
      }
      end = shutdown;
      const signal = await asked;
      engine.log("info", `processing signal '${signal}'`);
    } finally {
      for (const listener of listeners) listener.close();
      await end();
      for (const socket of connections) socket.destroy();
    }
    return 0;
  } finally {
    for (const undo of release.reverse()) undo();
  }
}

/** Resolves at the first request to end; the third one ends at once, as with dockerd. */
function ended(): Promise<string> {
  return new Promise((resolve) => {
    let asked = 0;
    for (const signal of ["SIGTERM", "SIGINT"] as const) {
      process.on(signal, () => {
        if (++asked >= 3) process.exit(1);
        resolve(signal);
      });
    }
    process.on("SIGPIPE", () => {});
  });
}

/** Runs jubakod with these arguments until it is asked to end; gives its exit code. */
export async function main(argv: string[]): Promise<number> {
  try {
    const { config, configFile, action } = parseOptions(argv);
    if (action === "help") process.stdout.write(usage());
    else if (action === "version") process.stdout.write(`Jubako version ${VERSION}, build ${COMMIT}\n`);
    else if (action === "validate") process.stdout.write(`configuration OK (${configFile})\n`);
    else return await run(config, argv);
    return 0;
  } catch (error) {
    process.stderr.write(`jubakod: ${messageOf(error)}\n`);
    // whatever a failed start left open must not keep the process
    setTimeout(() => process.exit(1), 1000).unref();
    return 1;
  }
}

if (import.meta.main) main(process.argv.slice(2)).then((status) => process.exit(status));
