// The streams of containers between the task service and everyone who reads or writes them: FIFOs, the log, attached clients.
//
// It must never know: how a process is started (the task service opens the other ends of the FIFOs by their paths), nor HTTP.
// At its door: IoFace of ../context.ts, and three FIFOs a process below EXEC_ROOT/io/ID/.
// Nouns: a capture moves a FIFO's bytes into the log exactly once (capture.ts); a hub hands them to the attached clients (hub.ts); stdin is
// the way back (stdin.ts). ContainerStreams (hub and stdin) outlive the process: a client may attach before the start.
//
//   const io = await engine.io.open(record);                        // FIFOs exist, the engine's ends are open
//   await tasks.create({ …, stdin: io.stdin, stdout: io.stdout });   // the shim opens its ends
//   await tasks.start(…); io.started();
//   … exit … await io.drained; await io.release();                  // everything is in the log; FIFOs unlinked
//
// While no engine runs, output stays in the FIFOs (256 KiB each, held open by the keeper); `reopen` reads on where the last engine was killed.
import { existsSync, mkdirSync, readdirSync, rmdirSync, unlinkSync } from "node:fs";
import { rm } from "node:fs/promises";
import { dirname } from "node:path";
import { read } from "../../linux/index.ts";
import { span } from "../../trace/index.ts";
import type { ContainerRecord, Engine, IoFace, ProcessIo } from "../context.ts";
import { createHealth } from "../health/monitor.ts";
import type { Stream } from "../logs/driver.ts";
import { logFiles } from "../logs/file.ts";
import { checkLogConfig, logSettings } from "../logs/options.ts";
import { openCapture } from "./capture.ts";
import { makeFifo } from "./fifo.ts";
import { type Output, openOutput } from "./output.ts";
import { type ContainerStreams, createStreams } from "./streams.ts";

/** Takes bytes off a FIFO for clients only. */
interface Taker {
  take(stream: Stream, fifo: number): number | undefined;
  finish(stream: Stream): void;
  close(): void;
}

const STREAMS: Stream[] = ["stdout", "stderr"];

const scratch = Buffer.alloc(64 * 1024);

function unlogged(streams: ContainerStreams): Taker {
  return {
    take(stream, fifo) {
      const n = read(fifo, scratch);
      if (n) streams.hub.emit(stream, scratch.subarray(0, n));
      return n;
    },
    finish() {},
    close() {},
  };
}

interface Wiring {
  dir: string;
  stdin: boolean;
  outputs: Stream[];
  terminal: boolean;
  streams: ContainerStreams;
  taker: Taker;
  /** The write end of stdin was closed: the task service has to close the keeper's. */
  stdinClosed(): void;
  pid(): number;
  resume: boolean;
  released(): void;
}

function connect(wiring: Wiring): ProcessIo {
  const { dir, streams, taker } = wiring;
  const drained = Promise.withResolvers<void>();
  const outputs = new Map<Stream, Output>();
  let released = false;

  function ended(stream: Stream): void {
    taker.finish(stream);
    outputs.delete(stream);
    if (outputs.size === 0) allEnded();
  }

  function allEnded(): void {
    streams.live = false;
    streams.hub.onUnblock = undefined;
    streams.hub.end();
    for (const listener of streams.logListeners) listener();
    drained.resolve();
  }

  streams.live = true;
  streams.hub.onUnblock = () => {
    for (const output of outputs.values()) output.pause(false);
  };
  for (const stream of wiring.outputs) {
    const output = openOutput({
      path: `${dir}/${stream}`,
      take(fd) {
        const n = taker.take(stream, fd);
        if (streams.hub.blocked) for (const each of outputs.values()) each.pause(true);
        return n;
      },
      ended: () => ended(stream),
      pid: wiring.terminal ? wiring.pid : undefined,
    });
    outputs.set(stream, output);
  }
  if (wiring.stdin) {
    streams.stdin.connect(`${dir}/stdin`, wiring.stdinClosed);
    if (wiring.resume) streams.stdin.started();
  }
  if (wiring.resume) for (const output of [...outputs.values()]) output.catchUp();
  if (outputs.size === 0) allEnded();

  return {
    stdin: wiring.stdin ? `${dir}/stdin` : "",
    stdout: wiring.outputs.includes("stdout") ? `${dir}/stdout` : "",
    stderr: wiring.outputs.includes("stderr") ? `${dir}/stderr` : "",
    terminal: wiring.terminal,
    drained: drained.promise,
    closeStdin() {
      streams.stdin.end();
    },
    started() {
      streams.stdin.started();
    },
    async release() {
      if (released) return;
      released = true;
      for (const output of outputs.values()) output.close();
      for (const stream of outputs.keys()) taker.finish(stream);
      const open = outputs.size > 0;
      outputs.clear();
      if (open) allEnded();
      taker.close();
      streams.stdin.disconnect();
      wiring.released();
      try {
        // The usual case: the FIFOs alone. A walk costs several times as much, and a thread's waking up.
        for (const stream of wiring.outputs) unlinkSync(`${dir}/${stream}`);
        if (wiring.stdin) unlinkSync(`${dir}/stdin`);
        rmdirSync(dir);
      } catch {
        await rm(dir, { recursive: true, force: true });
      }
    },
  };
}

export function createIo(engine: Engine): IoFace {
  const all = new Map<string, ContainerStreams>();
  const processes = new Map<string, ProcessIo>();
  const health = createHealth(engine);
  let complained = 0;

  function streamsOf(id: string): ContainerStreams {
    let streams = all.get(id);
    if (!streams) {
      streams = createStreams();
      all.set(id, streams);
    }
    return streams;
  }

  function failed(id: string, error: unknown): void {
    if (performance.now() - complained < 60_000 && complained !== 0) return;
    complained = performance.now();
    engine.log("error", "container log cannot be written; output is lost", { container: id, error: String(error) });
  }

  function closeIo(containerId: string, execId: string): void {
    engine.manager.tasks.closeIO({ containerId, execId, stdin: true }).catch((error) => {
      engine.log("debug", "closing stdin failed", { container: containerId, error: String(error) });
    });
  }

  function makeFifos(dir: string, names: string[]): void {
    mkdirSync(dir, { recursive: true, mode: 0o700 });
    for (const name of names) makeFifo(`${dir}/${name}`);
  }

  /** The clients of the execs went with the last engine: what these processes still write is read and dropped, so that they do not hang. */
  function abandonExecs(dir: string): void {
    for (const entry of readdirSync(dir, { withFileTypes: true })) {
      if (!entry.isDirectory()) continue;
      const outputs = STREAMS.filter((name) => existsSync(`${dir}/${entry.name}/${name}`));
      const streams = createStreams();
      const io = connect({
        dir: `${dir}/${entry.name}`,
        stdin: false,
        outputs,
        terminal: false,
        streams,
        taker: unlogged(streams),
        stdinClosed() {},
        pid: () => 0,
        resume: true,
        released() {},
      });
      io.drained
        .then(io.release)
        .catch((error) => engine.log("debug", "an old exec's streams could not be removed", { error: String(error) }));
    }
  }

  function start(record: ContainerRecord, resume: boolean): ProcessIo {
    const { id, config } = record;
    const dir = `${engine.config.execRoot}/io/${id}`;
    const terminal = config.Tty ?? false;
    const outputs: Stream[] = terminal ? ["stdout"] : ["stdout", "stderr"];
    makeFifos(dir, config.OpenStdin ? ["stdin", ...outputs] : outputs);
    if (resume) abandonExecs(dir);
    const streams = streamsOf(id);
    const settings = logSettings(record);
    if (settings && !resume) mkdirSync(dirname(settings.path), { recursive: true, mode: 0o710 });
    const taker = settings
      ? openCapture({
          dir,
          settings,
          resume,
          emit: streams.hub.emit,
          logged: () => {
            for (const listener of streams.logListeners) listener();
          },
          failed: (error) => failed(id, error),
        })
      : unlogged(streams);
    const io = connect({
      dir,
      stdin: config.OpenStdin ?? false,
      outputs,
      terminal,
      streams,
      taker,
      stdinClosed: () => closeIo(id, ""),
      pid: () => engine.containers.pid(id),
      resume,
      released: () => processes.delete(id),
    });
    processes.set(id, io);
    return io;
  }

  return {
    open: (record) => span("io open", { container: record.id }, async () => start(record, false)),
    reopen: (record) => span("io reopen", { container: record.id }, async () => start(record, true)),
    get: (id) => processes.get(id),
    streams: streamsOf,
    openExec(id, execId, streams, use) {
      const dir = `${engine.config.execRoot}/io/${id}/${execId}`;
      const outputs: Stream[] = !use.output ? [] : use.terminal ? ["stdout"] : ["stdout", "stderr"];
      makeFifos(dir, use.stdin ? ["stdin", ...outputs] : outputs);
      return connect({
        dir,
        stdin: use.stdin,
        outputs,
        terminal: use.terminal,
        streams,
        taker: unlogged(streams),
        stdinClosed: () => closeIo(id, execId),
        pid: () => 0,
        resume: false,
        released() {},
      });
    },
    startHealth: health.start,
    stopHealth: health.stop,
    checkLogConfig: (hostConfig) => checkLogConfig(engine.config, hostConfig),
    async removeLogs(record) {
      all.get(record.id)?.hub.end();
      all.delete(record.id);
      const settings = logSettings(record);
      if (!settings) return;
      await Promise.all(logFiles(settings.path).map((file) => rm(file, { force: true })));
    },
  };
}
