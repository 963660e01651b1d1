// A connection to a unix socket as a stream of bytes, by system calls alone: it serves hosts that have no sockets of their own (lean/).
import { AF_UNIX, binding, check, close, EPOLLIN, EPOLLOUT, errno, read, SYS, unixAddress, type Watch, watch } from "../../linux/index.ts";

const SOCK_STREAM = 1 | 0o2000000 | 0o4000; // with SOCK_CLOEXEC and SOCK_NONBLOCK
/** A peer that is gone is an error, not the end of this program. */
const MSG_NOSIGNAL = 0x4000;
const CHUNK = 16 * 1024;
/** What waits for a peer that does not read. */
const MAX_QUEUE = 32 << 20;
/** Between attempts where the other side's queue of new connections is full. */
const RETRY = 20;

export interface Stream {
  /** What came; it stays as it is only until this returns. Set it before anything can come, and whenever it is another's turn. */
  onData: (bytes: Uint8Array) => void;
  /** Nothing comes any more: the other side ended it, or something failed. Once, and not after close(). */
  onEnd: (error: Error | undefined) => void;
  /** Goes out in order, as fast as the other side takes it. */
  send(bytes: Uint8Array): void;
  close(): void;
}

/** `path`: with a NUL in front a name in no file system. Rejects also where it takes longer than `timeout` milliseconds. */
export async function connectStream(path: string, timeout: number): Promise<Stream> {
  const address = unixAddress(path);
  const deadline = Date.now() + timeout;
  const fd = check(binding.syscall(SYS.socket, AF_UNIX, SOCK_STREAM, 0), "socket");
  try {
    for (;;) {
      const result = binding.syscall(SYS.connect, fd, address, address.length);
      if (result !== -errno.EAGAIN || Date.now() > deadline) check(result, "connect");
      if (result === 0) return stream(fd);
      await new Promise<void>((resolve) => void setTimeout(resolve, RETRY));
    }
  } catch (error) {
    close(fd);
    throw error;
  }
}

function stream(fd: number): Stream {
  const buffer = new Uint8Array(CHUNK);
  const queue: Uint8Array[] = [];
  let queued = 0;
  let watching: Watch | undefined;

  const shut = () => {
    watching?.close();
    watching = undefined;
    close(fd);
  };
  const end = (error: Error | undefined) => {
    if (!watching) return;
    shut();
    self.onEnd(error);
  };
  const flush = () => {
    while (queue[0]) {
      const n = binding.syscall(SYS.sendto, fd, queue[0], queue[0].length, MSG_NOSIGNAL, null, 0);
      if (n === -errno.EINTR) continue;
      if (n === -errno.EAGAIN) break;
      check(n, "send");
      queued -= n;
      if (n < queue[0].length) queue[0] = queue[0].subarray(n);
      else queue.shift();
    }
  };
  const self: Stream = {
    onData: () => {},
    onEnd: () => {},
    send(bytes) {
      if (!watching) return;
      queue.push(bytes);
      queued += bytes.length;
      if (queued > MAX_QUEUE) return end(new Error("it does not read"));
      // Otherwise the loop is at it.
      if (queue.length > 1) return;
      try {
        flush();
        if (queue.length > 0) watching.events(EPOLLIN | EPOLLOUT);
      } catch (error) {
        end(error as Error);
      }
    },
    close() {
      if (watching) shut();
    },
  };
  watching = watch(fd, EPOLLIN, (events) => {
    let n: number | undefined;
    try {
      if (events & EPOLLOUT) {
        flush();
        if (queue.length === 0) watching?.events(EPOLLIN);
      }
      n = read(fd, buffer);
    } catch (error) {
      return end(error as Error);
    }
    if (n === 0) end(undefined);
    else if (n !== undefined) self.onData(buffer.subarray(0, n));
  });
  return self;
}
