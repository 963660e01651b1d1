// Netlink (netlink(7), RFC 3549): building messages, sending several in one system call, reading what the kernel answers. Synchronous: the
// kernel has done the work when sendto returns, and its answers are waiting in the socket.
import { writeApart } from "./apart.ts";
import { binding } from "./binding.ts";
import { check, errno, SystemError } from "./errno.ts";
import { close } from "./fd.ts";
import { SYS } from "./sys.ts";

export const NETLINK_ROUTE = 0;
export const NETLINK_NETFILTER = 12;

export const NLM_F_REQUEST = 0x1;
export const NLM_F_ACK = 0x4;
export const NLM_F_DUMP = 0x300;
export const NLM_F_REPLACE = 0x100;
export const NLM_F_EXCL = 0x200;
export const NLM_F_CREATE = 0x400;
export const NLM_F_APPEND = 0x800;

const NLMSG_ERROR = 2;
const NLMSG_DONE = 3;
const NLM_F_ACK_TLVS = 0x200;
const NLA_F_NESTED = 0x8000;
const NLA_TYPE = 0x3fff;
const AF_NETLINK = 16;
const SOCK_RAW_CLOEXEC = 3 | 0o2000000;
const SOL_NETLINK = 270;
const NETLINK_CAP_ACK = 10;
const NETLINK_EXT_ACK = 11;
const SOL_SOCKET = 1;
const SO_RCVBUFFORCE = 33;
const MSG_DONTWAIT = 0x40;
const MSG_TRUNC = 0x20;

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** Messages under construction. Numbers are in host order (little endian) unless a name says `be`. */
export interface Messages {
  /** Starts a message; `what` says in an error what was tried. Messages that expect no answer beside an acknowledgement get NLM_F_ACK by default. */
  message(type: number, flags: number, what: string): void;
  u8(value: number): void;
  u16(value: number): void;
  u32(value: number): void;
  u16be(value: number): void;
  attr(type: number, value: Uint8Array): void;
  attrU8(type: number, value: number): void;
  attrU16(type: number, value: number): void;
  attrU32(type: number, value: number): void;
  attrU16be(type: number, value: number): void;
  attrU32be(type: number, value: number): void;
  attrU64be(type: number, value: bigint): void;
  /** A string with its NUL. */
  attrString(type: number, value: string): void;
  attrEmpty(type: number): void;
  nest(type: number, fill: () => void): void;
  /** How many messages, and the bytes of all. */
  readonly count: number;
  finish(): { bytes: Uint8Array; whats: string[] };
}

const align = (n: number) => (n + 3) & ~3;

/** A builder; `capacity` grows as needed. */
export function netlinkMessages(capacity = 2048): Messages {
  let bytes = new Uint8Array(capacity);
  let view = new DataView(bytes.buffer);
  let at = 0;
  let start = -1;
  const whats: string[] = [];
  const room = (n: number) => {
    if (at + n <= bytes.length) return;
    const larger = new Uint8Array(Math.max(bytes.length * 2, at + n + 1024));
    larger.set(bytes);
    bytes = larger;
    view = new DataView(bytes.buffer);
  };
  const end = () => {
    if (start < 0) return;
    view.setUint32(start, at - start, true);
    start = -1;
  };
  const header = (type: number, length: number) => {
    room(align(length) + 4);
    view.setUint16(at, length + 4, true);
    view.setUint16(at + 2, type, true);
    at += 4;
  };
  return {
    get count() {
      return whats.length;
    },
    message(type, flags, what) {
      end();
      room(16);
      start = at;
      whats.push(what);
      view.setUint16(at + 4, type, true);
      view.setUint16(at + 6, flags | NLM_F_REQUEST, true);
      view.setUint32(at + 8, whats.length, true);
      at += 16;
    },
    u8(value) {
      room(1);
      bytes[at++] = value;
    },
    u16(value) {
      room(2);
      view.setUint16(at, value, true);
      at += 2;
    },
    u32(value) {
      room(4);
      view.setUint32(at, value, true);
      at += 4;
    },
    u16be(value) {
      room(2);
      view.setUint16(at, value);
      at += 2;
    },
    attr(type, value) {
      header(type, value.length);
      bytes.set(value, at);
      at += align(value.length);
    },
    attrU8(type, value) {
      header(type, 1);
      bytes[at] = value;
      at += 4;
    },
    attrU16(type, value) {
      header(type, 2);
      view.setUint16(at, value, true);
      at += 4;
    },
    attrU32(type, value) {
      header(type, 4);
      view.setUint32(at, value, true);
      at += 4;
    },
    attrU16be(type, value) {
      header(type, 2);
      view.setUint16(at, value);
      at += 4;
    },
    attrU32be(type, value) {
      header(type, 4);
      view.setUint32(at, value);
      at += 4;
    },
    attrU64be(type, value) {
      header(type, 8);
      view.setBigUint64(at, value);
      at += 8;
    },
    attrString(type, value) {
      const text = encoder.encode(value);
      header(type, text.length + 1);
      bytes.set(text, at);
      at += align(text.length + 1);
    },
    attrEmpty(type) {
      header(type, 0);
    },
    nest(type, fill) {
      header(type | NLA_F_NESTED, 0);
      const begin = at;
      fill();
      view.setUint16(begin - 4, at - begin + 4, true);
    },
    finish() {
      end();
      return { bytes: bytes.subarray(0, at), whats };
    },
  };
}

/** One message from the kernel: its type and what follows the header. */
export interface Reply {
  type: number;
  body: Uint8Array;
}

export interface NetlinkSocket {
  readonly fd: number;
  /**
   * Sends the messages in one system call and collects the answers. The kernel goes on after a message that failed (except within an nfnetlink
   * batch, which is all or nothing); then the first error is thrown as a SystemError whose `what` names the message, with the kernel's explanation.
   */
  request(messages: Messages): Reply[];
  close(): void;
}

const received = new Uint8Array(256 * 1024);
const receivedView = new DataView(received.buffer);

/** The kernel's sentence among the attributes that follow an error (NLMSGERR_ATTR_MSG). */
function explanation(from: number, to: number): string {
  for (let at = from; at + 4 <= to; ) {
    const length = receivedView.getUint16(at, true);
    if (length < 4) break;
    if ((receivedView.getUint16(at + 2, true) & NLA_TYPE) === 1) return decoder.decode(received.subarray(at + 4, at + length - 1));
    at += align(length);
  }
  return "";
}

/** Reads what the kernel has answered; throws the first error in it. */
function collect(fd: number, whats: string[]): Reply[] {
  const replies: Reply[] = [];
  let error: SystemError | undefined;
  for (;;) {
    const n = binding.syscall(SYS.recvfrom, fd, received, received.length, MSG_DONTWAIT | MSG_TRUNC, null, null);
    if (n === -errno.EAGAIN) break;
    if (n === -errno.EINTR) continue;
    check(n, `netlink: answer to ${whats[0]}`);
    if (n > received.length) throw new SystemError(`netlink: answer to ${whats[0]}`, errno.EMSGSIZE);
    for (let at = 0; at + 16 <= n; ) {
      const length = receivedView.getUint32(at, true);
      if (length < 16 || at + length > n) break;
      const type = receivedView.getUint16(at + 4, true);
      if (type === NLMSG_ERROR || type === NLMSG_DONE) {
        const code = length >= 20 ? receivedView.getInt32(at + 16, true) : 0;
        if (code < 0 && !error) {
          const flags = receivedView.getUint16(at + 6, true);
          const what = whats[receivedView.getUint32(at + 8, true) - 1] ?? whats[0]!;
          const why = type === NLMSG_ERROR && flags & NLM_F_ACK_TLVS ? explanation(at + 36, at + length) : "";
          error = new SystemError(why ? `${what} (${why})` : what, -code);
        }
      } else replies.push({ type, body: received.slice(at + 16, at + length) });
      at += align(length);
    }
  }
  if (error) throw error;
  return replies;
}

/**
 * Sends the messages through a socket of their own from a worker thread, for what makes the kernel wait (deleting links). The socket is of the
 * namespace the calling thread is in now. Rejects with the first error.
 */
export async function requestApart(protocol: number, messages: Messages): Promise<Reply[]> {
  const socket = openNetlink(protocol);
  try {
    const { bytes, whats } = messages.finish();
    if (whats.length === 0) return [];
    check(await writeApart(socket.fd, bytes), `netlink: ${whats[0]}`);
    return collect(socket.fd, whats);
  } finally {
    socket.close();
  }
}

/** A netlink socket in the network namespace the thread is in; it stays in that namespace wherever the thread goes. */
export function openNetlink(protocol: number): NetlinkSocket {
  const fd = check(binding.syscall(SYS.socket, AF_NETLINK, SOCK_RAW_CLOEXEC, protocol), "netlink socket");
  const one = new Int32Array([1]);
  binding.syscall(SYS.setsockopt, fd, SOL_NETLINK, NETLINK_CAP_ACK, one, 4);
  binding.syscall(SYS.setsockopt, fd, SOL_NETLINK, NETLINK_EXT_ACK, one, 4);
  let roomy = false;
  return {
    fd,
    request(messages) {
      const { bytes, whats } = messages.finish();
      if (whats.length === 0) return [];
      if (whats.length > 64 && !roomy) {
        // each acknowledgement takes most of a kilobyte of the receive buffer's account
        binding.syscall(SYS.setsockopt, fd, SOL_SOCKET, SO_RCVBUFFORCE, new Int32Array([8 << 20]), 4);
        roomy = true;
      }
      check(binding.syscall(SYS.sendto, fd, bytes, bytes.length, 0, null, 0), `netlink: ${whats[0]}`);
      return collect(fd, whats);
    },
    close: () => close(fd),
  };
}

/** Attributes of a message's or a nest's bytes, by type; of several with one type the last counts. */
export function attributes(bytes: Uint8Array, from = 0): Map<number, Uint8Array> {
  const out = new Map<number, Uint8Array>();
  for (const [type, value] of attributeList(bytes, from)) out.set(type, value);
  return out;
}

export function attributeList(bytes: Uint8Array, from = 0): [type: number, value: Uint8Array][] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const out: [number, Uint8Array][] = [];
  for (let at = from; at + 4 <= bytes.length; ) {
    const length = view.getUint16(at, true);
    if (length < 4 || at + length > bytes.length) break;
    out.push([view.getUint16(at + 2, true) & NLA_TYPE, bytes.subarray(at + 4, at + length)]);
    at += align(length);
  }
  return out;
}

/** An attribute's string, without its NUL. */
export function attributeString(value: Uint8Array | undefined): string | undefined {
  if (!value) return undefined;
  const end = value.indexOf(0);
  return decoder.decode(end < 0 ? value : value.subarray(0, end));
}

export function attributeU32(value: Uint8Array | undefined): number | undefined {
  return value && value.length >= 4 ? new DataView(value.buffer, value.byteOffset).getUint32(0, true) : undefined;
}
