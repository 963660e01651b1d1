// A seccomp agent for tests (seccomp_unotify(2)): it takes listeners, and answers every call that it hears of with an error.
import { binding, check, close, EPOLLIN, SYS, watch } from "../linux/index.ts";

// linux/seccomp.h
const SECCOMP_IOCTL_NOTIF_RECV = 0xc0502100;
const SECCOMP_IOCTL_NOTIF_SEND = 0xc0182101;
const ENOMEDIUM = 123;

/** Takes the state and the listener of each process, then answers every call that it hears of with an error. */
export function seccompAgent(path: string): { state: () => Record<string, unknown>; close(): void } {
  const address = new Uint8Array(2 + Buffer.byteLength(path) + 1);
  address[0] = 1;
  address.set(Buffer.from(path), 2);
  const socket = check(binding.syscall(SYS.socket, 1, 1 | 0o2000000, 0), "socket");
  check(binding.syscall(SYS.bind, socket, address, address.length), "bind");
  check(binding.syscall(SYS.listen, socket, 4), "listen");
  let state: Record<string, unknown> = {};
  const open: { close(): void }[] = [];
  const waiting = watch(socket, EPOLLIN, () => {
    const peer = check(binding.syscall(SYS.accept4, socket, null, null, 0o2000000), "accept");
    const text = new Uint8Array(8192);
    const control = new Uint8Array(64);
    const iov = new BigUint64Array([BigInt(binding.address(text)), BigInt(text.length)]);
    const header = new BigUint64Array([0n, 0n, BigInt(binding.address(iov)), 1n, BigInt(binding.address(control)), 64n, 0n]);
    const n = check(binding.syscall(SYS.recvmsg, peer, header, 0), "recvmsg");
    void iov;
    close(peer);
    state = JSON.parse(Buffer.from(text.subarray(0, n)).toString());
    const listener = new DataView(control.buffer).getInt32(16, true);
    const listening = watch(listener, EPOLLIN, () => {
      const heard = new Uint8Array(80);
      if (binding.syscall(SYS.ioctl, listener, SECCOMP_IOCTL_NOTIF_RECV, heard) < 0) return listening.close();
      // struct seccomp_notif_resp: id, val, error, flags
      const answer = new DataView(new ArrayBuffer(24));
      answer.setBigUint64(0, new DataView(heard.buffer).getBigUint64(0, true), true);
      answer.setInt32(16, -ENOMEDIUM, true);
      binding.syscall(SYS.ioctl, listener, SECCOMP_IOCTL_NOTIF_SEND, new Uint8Array(answer.buffer));
    });
    open.push({
      close() {
        listening.close();
        close(listener);
      },
    });
  });
  return {
    state: () => state,
    close() {
      waiting.close();
      close(socket);
      for (const each of open) each.close();
    },
  };
}
