// Unpacks layers on a few worker threads. A thread is started when there is work and ends after some idle seconds, so that an idle process pays
// nothing.
import { availableParallelism } from "node:os";
import { type ErrorKind, Failure, invalidArgument } from "../../lib/errors.ts";
import { compiled } from "../../lib/program.ts";
import { algorithmOf, type Digest } from "../digest.ts";
import type { Reply } from "./apply.worker.ts";
import { EXPANSION, type ExpansionLimit } from "./expansion.ts";
import type { Whiteouts } from "./extract.ts";
import { createProgress, type Progress } from "./progress.ts";
import type { Unpacked, UnpackJob } from "./unpack.ts";

export interface ApplyOptions {
  /** File that holds the blob; may still be growing where `progress` is given. */
  file: string;
  /** Directory to extract into: an overlay snapshot's own directory (upper), or any. It must be there. What a failure leaves in it is the caller's to remove. */
  root: string;
  /** "overlay" (default): deletions become 0:0 devices and opaque xattrs; "remove": they are carried out in `root`; "ignore": the lowest layer has nothing to delete. */
  whiteouts?: Whiteouts;
  /** Directories of the layers below, topmost first: parents missing in the archive get their mode and owner from there. */
  parents?: readonly string[];
  /** InvalidArgument where the blob has another digest. */
  digest?: Digest;
  /** InvalidArgument where the blob has another length. */
  size?: number;
  /** InvalidArgument where the uncompressed tar has another digest. */
  diffId?: Digest;
  /** The writer of a file that still grows: see createProgress. */
  progress?: Progress;
  /** ResourceExhausted above; by default what the file system has to spare. */
  maxBytes?: number;
  maxEntries?: number;
  /** ResourceExhausted where the tar is more than this many times larger; by default as EXPANSION says. */
  expansion?: ExpansionLimit;
  signal?: AbortSignal;
}

const IDLE_MS = 5000;
const MAX_ENTRIES = 10_000_000;
const LIMIT = Math.max(2, Math.min(4, availableParallelism()));

interface Waiting {
  job: UnpackJob;
  resolve(result: Unpacked): void;
  reject(error: unknown): void;
}

interface Thread {
  worker: Worker;
  current: Waiting | undefined;
  idle: ReturnType<typeof setTimeout> | undefined;
}

const threads = new Set<Thread>();
const queue: Waiting[] = [];

/** The worker's file: beside this one in a checkout; in the compiled executable an entry point of its own (scripts/build.ts), at a path that is independent of the working directory. */
function startWorker(): Worker {
  return new Worker(compiled() ? "/$bunfs/root/oci/layer/apply.worker.js" : new URL("./apply.worker.ts", import.meta.url).href);
}

function startThread(): Thread {
  const worker = startWorker();
  const thread: Thread = { worker, current: undefined, idle: undefined };
  threads.add(thread);
  worker.onmessage = (event: MessageEvent<Reply>) => {
    const reply = event.data;
    const waiting = thread.current;
    thread.current = undefined;
    if ("done" in reply) waiting?.resolve(reply.done);
    else waiting?.reject(failureOf(reply.failed));
    next(thread);
  };
  worker.onerror = (event) => {
    threads.delete(thread);
    thread.current?.reject(new Failure("Unknown", `the unpacking thread failed: ${event.message}`));
    thread.current = undefined;
    worker.terminate();
    if (queue.length) dispatch();
  };
  return thread;
}

function failureOf(failed: { kind: string; message: string; errno: number | undefined }): Error {
  if (failed.kind !== "System") return new Failure(failed.kind as ErrorKind, failed.message);
  return Object.assign(new Failure("Unknown", `failed to extract layer: ${failed.message}`), { errno: failed.errno });
}

function next(thread: Thread): void {
  const waiting = queue.shift();
  if (waiting) {
    run(thread, waiting);
    return;
  }
  thread.worker.unref();
  thread.idle = setTimeout(() => {
    threads.delete(thread);
    thread.worker.terminate();
  }, IDLE_MS);
  thread.idle.unref();
}

function run(thread: Thread, waiting: Waiting): void {
  clearTimeout(thread.idle);
  thread.idle = undefined;
  thread.current = waiting;
  thread.worker.ref();
  thread.worker.postMessage({ id: 0, job: waiting.job });
}

function dispatch(): void {
  for (const thread of threads) if (!thread.current && queue.length) run(thread, queue.shift()!);
  while (queue.length && threads.size < LIMIT) run(startThread(), queue.shift()!);
}

/**
 * Unpacks one layer (tar, plain or compressed with gzip or zstd, told by its bytes) in one pass and checks what was promised. Several calls run in
 * parallel. Throws InvalidArgument for a bad archive or a wrong digest, ResourceExhausted for a full disk, Cancelled, or Unknown with the system's words.
 */
export async function applyLayer(options: ApplyOptions): Promise<Unpacked> {
  options.signal?.throwIfAborted();
  const progress = options.progress ?? createProgress();
  const job: UnpackJob = {
    file: options.file,
    shared: progress.shared,
    following: options.progress !== undefined,
    root: options.root,
    whiteouts: options.whiteouts ?? "overlay",
    parents: options.parents ?? [],
    maxBytes: options.maxBytes,
    maxEntries: options.maxEntries ?? MAX_ENTRIES,
    expansion: options.expansion ?? EXPANSION,
    algorithm: options.digest ? algorithmOf(options.digest) : "sha256",
    expected: options.digest,
  };
  const abort = () => progress.abort();
  options.signal?.addEventListener("abort", abort);
  try {
    const result = await new Promise<Unpacked>((resolve, reject) => {
      queue.push({ job, resolve, reject });
      dispatch();
    });
    if (options.size !== undefined && result.size !== options.size)
      throw invalidArgument(`layer is ${result.size} bytes long, expected ${options.size}`);
    if (options.digest !== undefined && result.digest !== options.digest)
      throw invalidArgument(`unexpected digest ${result.digest} of layer, expected ${options.digest}`);
    if (options.diffId !== undefined && result.diffId !== options.diffId)
      throw invalidArgument(`wrong diff id calculated on extraction ${result.diffId}, expected ${options.diffId}`);
    return result;
  } finally {
    options.signal?.removeEventListener("abort", abort);
  }
}
