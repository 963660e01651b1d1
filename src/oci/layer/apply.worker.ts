// The thread that unpacks layers: one job at a time, synchronously. Its file mode mask is its own (unshare CLONE_FS) and zero, so that one open
// gives a file its final mode.
import { Failure, messageOf } from "../../lib/errors.ts";
import { binding, SYS, SystemError } from "../../linux/index.ts";
import { type Unpacked, type UnpackJob, unpack } from "./unpack.ts";

export type Reply = { id: number; done: Unpacked } | { id: number; failed: { kind: string; message: string; errno: number | undefined } };

const CLONE_FS = 0x200;
let ready = false;

function prepare(): void {
  if (ready) return;
  const result = binding.syscall(SYS.unshare, CLONE_FS);
  if (result < 0) throw new SystemError("unshare CLONE_FS", -result);
  binding.syscall(SYS.umask, 0);
  ready = true;
}

const scope = globalThis as unknown as {
  onmessage: (event: { data: { id: number; job: UnpackJob } }) => void;
  postMessage(reply: Reply): void;
};

scope.onmessage = ({ data: { id, job } }) => {
  try {
    prepare();
    scope.postMessage({ id, done: unpack(job) });
  } catch (error) {
    const kind = error instanceof Failure ? error.kind : error instanceof SystemError ? "System" : "Unknown";
    scope.postMessage({ id, failed: { kind, message: messageOf(error), errno: error instanceof SystemError ? error.errno : undefined } });
  }
};
