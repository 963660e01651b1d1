// CRIU, which writes processes down and makes them again: one request to its service worker (`criu swrk FD`), and the notifications on the way.
// Messages are protobuf in packets of a socket pair (CRIU's images/rpc.proto); descriptors in a request are numbers of this process.
import { readFileSync } from "node:fs";
import { Failure, failedPrecondition } from "../lib/errors.ts";
import { findProgram } from "../lib/find-program.ts";
import { binding, check, close, EPOLLIN, errno, O_PATH, O_RDWR, open, reap, SYS, spawn, watch } from "../linux/index.ts";

/** A message as its fields in order; a field that repeats stands there again. */
export type Message = [field: number, value: number | boolean | string | undefined | Message][];

export const REQUEST = { dump: 1, restore: 2, preDump: 4, notify: 6 } as const;

/** Field numbers of criu_opts. */
export const OPTION = {
  imagesDir: 1,
  pid: 2,
  leaveRunning: 3,
  externalUnixSockets: 4,
  tcpEstablished: 5,
  evasiveDevices: 6,
  shellJob: 7,
  fileLocks: 8,
  logLevel: 9,
  logFile: 10,
  pageServer: 11,
  notifyScripts: 12,
  root: 13,
  parentImage: 14,
  trackMemory: 15,
  autoDedup: 16,
  workDir: 17,
  externalMount: 23,
  manageCgroups: 24,
  cgroupRoot: 25,
  sibling: 26,
  inheritFd: 27,
  manageCgroupsMode: 34,
  external: 37,
  emptyNamespaces: 38,
  freezeCgroup: 44,
  lazyPages: 48,
  orphanTerminal: 50,
  configFile: 51,
  securityProfile: 53,
  securityMountContext: 63,
} as const;

export interface Notification {
  script: string;
  pid: number;
  /** A descriptor that came along; the receiver's to close. */
  fd: number | undefined;
}

const SHUT_WR = 1;
const utf8 = new TextEncoder();

export function encode(message: Message): Uint8Array {
  const bytes: number[] = [];
  const varint = (value: bigint) => {
    let rest = BigInt.asUintN(64, value);
    for (; rest > 127n; rest >>= 7n) bytes.push(Number(rest & 127n) | 128);
    bytes.push(Number(rest));
  };
  for (const [field, value] of message) {
    if (value === undefined) continue;
    if (typeof value === "number" || typeof value === "boolean") {
      varint(BigInt(field << 3));
      varint(BigInt(value));
    } else {
      const inner = typeof value === "string" ? utf8.encode(value) : encode(value);
      varint(BigInt((field << 3) | 2));
      varint(BigInt(inner.length));
      for (const byte of inner) bytes.push(byte);
    }
  }
  return Uint8Array.from(bytes);
}

/** The last value of each field: a number, or the bytes of a string or a message. */
export function decode(bytes: Uint8Array): Map<number, number | Uint8Array> {
  const fields = new Map<number, number | Uint8Array>();
  let at = 0;
  const varint = (): number => {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      const byte = bytes[at++];
      if (byte === undefined || shift > 63n) throw new Failure("Unknown", "criu: an answer cannot be read");
      value |= BigInt(byte & 127) << shift;
      if (byte < 128) return Number(BigInt.asIntN(64, value));
    }
  };
  while (at < bytes.length) {
    const tag = varint();
    if ((tag & 7) === 0) fields.set(tag >> 3, varint());
    else if ((tag & 7) === 2) {
      const length = varint();
      if (length < 0 || length > bytes.length - at) throw new Failure("Unknown", "criu: an answer cannot be read");
      fields.set(tag >> 3, bytes.subarray(at, at + length));
      at += length;
    } else throw new Failure("Unknown", "criu: an answer cannot be read");
  }
  return fields;
}

const numberOf = (value: number | Uint8Array | undefined) => (typeof value === "number" ? value : 0);
const bytesOf = (value: number | Uint8Array | undefined) => (value instanceof Uint8Array ? value : new Uint8Array());
const textOf = (value: number | Uint8Array | undefined) => new TextDecoder().decode(bytesOf(value));

/** The program, from --criu or $PATH. */
function findCriu(asked: string | undefined): string {
  const found = asked?.includes("/") ? asked : findProgram(asked ?? "criu");
  if (found) return found;
  throw failedPrecondition("checkpoint and restore need CRIU, and there is no program criu in $PATH (Debian: apt-get install criu)");
}

export interface CriuRequest {
  type: (typeof REQUEST)["dump" | "restore" | "preDump"];
  options: Message;
  /** Becomes descriptors 4 and up of CRIU's, beside 0 to 2, which are this process'. */
  inherited?: number[];
  criu?: string | undefined;
  /** CRIU, and what it restores, become children of this process' parent. */
  sibling?: boolean;
  /** Where its log is, for what it says of a failure. */
  log: string;
}

/**
 * `begun` gets CRIU's pid before it has heard of its task, and gives what else is to be among the options. The pid of a restored process is that of
 * a child of this one, or of its parent. The event loop goes on meanwhile.
 */
export async function requestCriu(
  request: CriuRequest,
  begun: (pid: number) => Message,
  notified: (notification: Notification) => void | Promise<void>,
): Promise<{ pid: number }> {
  const sockets = new Int32Array(2);
  const AF_UNIX = 1;
  const SOCK_SEQPACKET_CLOEXEC = 5 | 0o2000000;
  check(binding.syscall(SYS.socketpair, AF_UNIX, SOCK_SEQPACKET_CLOEXEC, 0, sockets), "socketpair");
  const [ours, theirs] = [sockets[0]!, sockets[1]!];
  let criu: { pid: number; pidfd: number } | undefined;
  let exe = -1;
  let none = -1;
  try {
    exe = open(findCriu(request.criu), O_PATH);
    // What is restored may take stdin, stdout and stderr over; of a dump all that is to be said is in the log.
    none = request.type === REQUEST.restore ? -1 : open("/dev/null", O_RDWR);
    const stdio = none < 0 ? [0, 1, 2] : [none, none, none];
    const env = Object.entries(process.env).map(([name, value]) => `${name}=${value}`);
    criu = spawn({
      exe,
      argv: ["criu", "swrk", "3"],
      env,
      fds: [...stdio, theirs, ...(request.inherited ?? [])],
      sibling: request.sibling ?? false,
    });
    close(theirs);
    const more = begun(criu.pid);
    send(ours, [
      [1, request.type],
      [2, [...request.options, ...more]],
    ]);
    for (;;) {
      const received = await receive(ours);
      if (!received) throw new Failure("Unknown", `criu ended without an answer${complaint(request.log)}`);
      const answer = decode(received.bytes);
      const type = numberOf(answer.get(1));
      if (!answer.get(2)) {
        const reason = textOf(answer.get(9));
        throw new Failure(
          "Unknown",
          `criu failed: errno ${numberOf(answer.get(7))}${reason ? ` (${reason})` : ""}${complaint(request.log)}`,
        );
      }
      if (type === REQUEST.notify) {
        const notify = decode(bytesOf(answer.get(5)));
        await notified({ script: textOf(notify.get(1)), pid: numberOf(notify.get(2)), fd: received.fd });
        send(ours, [
          [1, REQUEST.notify],
          [3, true],
        ]);
      } else return { pid: numberOf(decode(bytesOf(answer.get(4))).get(1)) };
    }
  } finally {
    close(exe);
    close(none);
    if (!criu) close(theirs);
    // It waits for another request after some; the end of ours tells it that there is none.
    binding.syscall(SYS.shutdown, ours, SHUT_WR);
    if (criu) {
      await readable(criu.pidfd);
      if (!request.sibling) reap(criu.pidfd);
      close(criu.pidfd);
    }
    close(ours);
  }
}

function readable(fd: number): Promise<void> {
  return new Promise((resolve) => {
    const watching = watch(fd, EPOLLIN, () => {
      watching.close();
      resolve();
    });
  });
}

/** The last error of CRIU's log, which says more than its answer. */
function complaint(log: string): string {
  try {
    const last = readFileSync(log, "utf8")
      .split("\n")
      .findLast((line) => line.includes("Error"));
    return `${last ? `: ${last.trim()}` : ""}\nlog file: ${log}`;
  } catch {
    return "";
  }
}

function send(socket: number, message: Message): void {
  const bytes = encode(message);
  check(binding.syscall(SYS.write, socket, bytes, bytes.length), "write to criu");
}

interface Packet {
  bytes: Uint8Array;
  fd: number | undefined;
}

/** One packet, and the descriptor in it; undefined at the end. */
async function receive(socket: number): Promise<Packet | undefined> {
  let packet = receiveNow(socket);
  for (; packet === "none"; packet = receiveNow(socket)) await readable(socket);
  return packet;
}

/** In one go: the kernel is given addresses, which nothing keeps alive while others run. */
function receiveNow(socket: number): Packet | "none" | undefined {
  const bytes = new Uint8Array(65536);
  const control = new Uint8Array(64);
  const iov = new BigUint64Array([BigInt(binding.address(bytes)), BigInt(bytes.length)]);
  // struct msghdr: name, namelen, iov, iovlen, control, controllen, flags
  const header = new BigUint64Array([0n, 0n, BigInt(binding.address(iov)), 1n, BigInt(binding.address(control)), 64n, 0n]);
  const FLAGS = 0x40000000 | 0x40; // MSG_CMSG_CLOEXEC, MSG_DONTWAIT
  let n: number;
  do n = binding.syscall(SYS.recvmsg, socket, header, FLAGS);
  while (n === -errno.EINTR);
  if (n === -errno.EAGAIN) return "none";
  if (check(n, "read from criu") === 0) return undefined;
  void iov;
  const rights = Number(header[5]!) >= 20;
  return { bytes: bytes.subarray(0, n), fd: rights ? new DataView(control.buffer).getInt32(16, true) : undefined };
}
