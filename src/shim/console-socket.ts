// The console socket of OCI runtimes: a unix socket on which the runtime sends the master side of the terminal it made (SCM_RIGHTS).
import { unlinkSync } from "node:fs";
import { binding, check, close, EPOLLIN, errno, O_CLOEXEC, O_DIRECTORY, O_NONBLOCK, O_PATH, open, SYS, watch } from "../linux/index.ts";
import { listenUnix } from "./unix.ts";

const MSG_CMSG_CLOEXEC = 0x40000000;
const MSG_DONTWAIT = 0x40;
const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;

export interface ConsoleSocket {
  path: string;
  /** The terminal's master side, non-blocking. */
  master: Promise<number>;
  close(): void;
}

/** A socket's path has at most 107 bytes, and the shim's directories can be deep: it is named by a descriptor of this process. */
export function consoleSocket(directory: string, name: string): ConsoleSocket {
  const place = open(directory, O_PATH | O_DIRECTORY);
  const path = `/proc/${process.pid}/fd/${place}/${name}`;
  let listener = -1;
  try {
    listener = listenUnix(path, O_NONBLOCK);
  } catch (error) {
    close(place);
    throw error;
  }
  let connection = -1;
  let settled = false;
  let waiting: { close(): void } | undefined;
  let give: (fd: number) => void = () => {};
  let refuse: (error: unknown) => void = () => {};
  const master = new Promise<number>((resolve, reject) => {
    give = resolve;
    refuse = reject;
  });
  master.catch(() => {});
  const end = (): void => {
    waiting?.close();
    waiting = undefined;
    close(connection);
    connection = -1;
    close(listener);
    try {
      unlinkSync(path);
    } catch {
      // already gone
    }
    close(place);
  };
  waiting = watch(listener, EPOLLIN, () => {
    const fd = binding.syscall(SYS.accept4, listener, null, null, O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return;
    waiting?.close();
    connection = fd;
    waiting = watch(fd, EPOLLIN, () => {
      try {
        const terminal = receiveDescriptor(fd);
        if (terminal === undefined) return;
        settled = true;
        end();
        give(terminal);
      } catch (error) {
        settled = true;
        end();
        refuse(error);
      }
    });
  });
  return {
    path,
    master,
    close() {
      if (settled) return;
      settled = true;
      end();
      refuse(new Error("the runtime sent no terminal"));
    },
  };
}

/** recvmsg(2) of one descriptor; undefined where nothing is there yet. */
function receiveDescriptor(socket: number): number | undefined {
  const data = new Uint8Array(4096);
  const control = new Uint8Array(64);
  const iov = new BigUint64Array([BigInt(binding.address(data)), BigInt(data.length)]);
  // struct msghdr: name, namelen, iov, iovlen, control, controllen, flags
  const header = new BigUint64Array([
    0n,
    0n,
    BigInt(binding.address(iov)),
    1n,
    BigInt(binding.address(control)),
    BigInt(control.length),
    0n,
  ]);
  const n = binding.syscall(SYS.recvmsg, socket, header, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  if (n === -errno.EAGAIN) return undefined;
  check(n, "recvmsg");
  const view = new DataView(control.buffer);
  // struct cmsghdr: len u64, level i32, type i32, then the descriptors
  if (Number(header[5]) < 20 || view.getInt32(8, true) !== SOL_SOCKET || view.getInt32(12, true) !== SCM_RIGHTS)
    throw new Error("the runtime's message on the console socket holds no descriptor");
  const fd = view.getInt32(16, true);
  const flags = check(binding.syscall(SYS.fcntl, fd, 3, 0), "fcntl F_GETFL");
  check(binding.syscall(SYS.fcntl, fd, 4, flags | O_NONBLOCK), "fcntl F_SETFL");
  return fd;
}
