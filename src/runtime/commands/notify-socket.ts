// $NOTIFY_SOCKET (sd_notify(3)): the container gets a socket of its own, and what its program says there, "READY=1", is told to systemd, with the
// program's pid on the host in place of the runtime's. start, and a detached run, wait for it.
import {
  AF_UNIX,
  binding,
  check,
  close,
  EPOLLIN,
  existsSync,
  mkdirSync,
  O_DIRECTORY,
  O_PATH,
  open,
  read,
  SYS,
  textOf,
  unixAddress,
  utf8,
  watch,
} from "../../linux/index.ts";
import type { Spec } from "../../oci/runtime-spec.ts";

const INSIDE = "/run/notify";
const NAME = "notify.sock";
const SOCK_DGRAM_CLOEXEC = 2 | 0o2000000;
const SOCK_NONBLOCK = 0o4000;
const F_DUPFD_CLOEXEC = 1030;

/** Where a container's directory has it. */
const placeIn = (directory: string) => `${directory}/notify`;

/** Gives the container a place for the socket, before it is planned. */
export function offerNotifySocket(spec: Spec, directory: string): void {
  mkdirSync(placeIn(directory), { mode: 0o755 });
  // The umask has no say in who can reach it.
  check(binding.syscall(SYS.fchmodat, -100, placeIn(directory), 0o755), "chmod");
  const options = ["bind", "nosuid", "noexec", "nodev", "ro"];
  spec.mounts = [...(spec.mounts ?? []), { destination: INSIDE, type: "bind", source: placeIn(directory), options }];
  if (spec.process) spec.process.env = [...(spec.process.env ?? []), `NOTIFY_SOCKET=${INSIDE}/${NAME}`];
}

export interface NotifySocket {
  /** Resolves once the program said that it is ready, or has ended; then everything is closed. */
  told(pid: number, pidfd: number): Promise<void>;
  close(): void;
}

/** Listens at the container's socket; undefined where it was created without one. `host`: systemd's. */
export function openNotifySocket(directory: string, host: string): NotifySocket | undefined {
  if (!existsSync(placeIn(directory))) return undefined;
  const place = open(placeIn(directory), O_PATH | O_DIRECTORY);
  const socket = check(binding.syscall(SYS.socket, AF_UNIX, SOCK_DGRAM_CLOEXEC | SOCK_NONBLOCK, 0), "socket");
  let client = -1;
  let stop = () => {};
  let ended = false;
  const end = () => {
    if (ended) return;
    ended = true;
    stop();
    close(socket);
    close(client);
  };
  try {
    // A path that is as short as an address can hold, wherever --root is.
    const address = unixAddress(`/proc/self/fd/${place}/${NAME}`);
    check(binding.syscall(SYS.bind, socket, address, address.length), `bind ${placeIn(directory)}/${NAME}`);
    check(binding.syscall(SYS.fchmodat, place, NAME, 0o777), "chmod");
    client = check(binding.syscall(SYS.socket, AF_UNIX, SOCK_DGRAM_CLOEXEC, 0), "socket");
    // With @ in front it is a name in no file system.
    const systemd = unixAddress(host.replace(/^@/, "\0"));
    check(binding.syscall(SYS.connect, client, systemd, systemd.length), `connect to $NOTIFY_SOCKET ${host}`);
  } catch (error) {
    end();
    throw error;
  } finally {
    close(place);
  }
  const tell = (text: string) => {
    const bytes = utf8(`${text}\n`);
    check(binding.syscall(SYS.write, client, bytes, bytes.length), "write to $NOTIFY_SOCKET");
  };
  return {
    close: end,
    told: (pid, pidfd) =>
      new Promise((resolve, reject) => {
        const buffer = new Uint8Array(4096);
        const over = (error?: unknown) => {
          end();
          if (error === undefined) resolve();
          else reject(error);
        };
        const hearing = watch(socket, EPOLLIN, () => {
          try {
            const n = read(socket, buffer);
            const ready = n ? /^READY=.*$/m.exec(textOf(buffer.subarray(0, n)))?.[0] : undefined;
            if (ready === undefined) return;
            tell(ready);
            tell(`MAINPID=${pid}`);
            over();
          } catch (error) {
            over(error);
          }
        });
        // A descriptor of its own: whoever stays with the process watches the other.
        const process = check(binding.syscall(SYS.fcntl, pidfd, F_DUPFD_CLOEXEC, 0), "fcntl F_DUPFD_CLOEXEC");
        const ending = watch(process, EPOLLIN, () => over());
        stop = () => {
          hearing.close();
          ending.close();
          close(process);
        };
      }),
  };
}
