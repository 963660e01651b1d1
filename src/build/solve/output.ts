// The output of a step's command: one FIFO for both streams, so that lines keep their order.
import { rmSync } from "node:fs";
import { binding, check, close, EPOLLIN, O_NONBLOCK, O_RDONLY, open, read, SYS, watch } from "../../linux/index.ts";

const S_IFIFO = 0o010000;
/** Output that is not at its end this long after the exit belongs to a process that outlived the command. */
const DRAIN_MS = 2000;

export interface StepOutput {
  path: string;
  /** Resolves when the output is at its end, or soon after. */
  drained(): Promise<void>;
  close(): void;
}

export function openStepOutput(path: string, onData: (bytes: Uint8Array) => void): StepOutput {
  check(binding.syscall(SYS.mknod, path, S_IFIFO | 0o600, 0), `mkfifo ${path}`);
  const fd = open(path, O_RDONLY | O_NONBLOCK);
  const buffer = Buffer.alloc(64 << 10);
  const { promise, resolve } = Promise.withResolvers<void>();
  let over = false;
  const shut = () => {
    if (over) return;
    over = true;
    watching.close();
    close(fd);
    rmSync(path, { force: true });
    resolve();
  };
  const watching = watch(fd, EPOLLIN, () => {
    const n = read(fd, buffer);
    if (n === undefined) return;
    if (n === 0) shut();
    else onData(Buffer.from(buffer.subarray(0, n)));
  });
  return {
    path,
    async drained() {
      const timer = setTimeout(shut, DRAIN_MS);
      await promise;
      clearTimeout(timer);
    },
    close: shut,
  };
}
