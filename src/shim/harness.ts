// What the shim's tests share: a bundle with busybox, FIFOs, a shim in this process or one of its own.
import { randomBytes } from "node:crypto";
import { copyFileSync, mkdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { findProgram } from "../lib/find-program.ts";
import { binding, check, close, EPOLLIN, O_NONBLOCK, O_RDONLY, open, read, SYS, watch } from "../linux/index.ts";

export const BUSYBOX = findProgram("busybox");
export const RUNC = findProgram("runc", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin");

export interface Place {
  dir: string;
  rootfs: string;
  /** Makes it; in beforeAll, so that a suite that is filtered out leaves nothing. */
  make(): void;
  remove(): void;
}

const APPLETS = ["sh", "true", "sleep", "cat", "echo", "stty", "tty", "kill", "ps", "head", "wc", "dd", "tr", "tail"];

export function place(name: string): Place {
  const dir = `/tmp/jubako-shim-${name}-${randomBytes(4).toString("hex")}`;
  const rootfs = `${dir}/rootfs`;
  return {
    dir,
    rootfs,
    make() {
      for (const sub of ["bin", "proc", "dev", "sys", "tmp", "etc"]) mkdirSync(`${rootfs}/${sub}`, { recursive: true });
      copyFileSync(BUSYBOX!, `${rootfs}/bin/busybox`);
      for (const applet of APPLETS) symlinkSync("busybox", `${rootfs}/bin/${applet}`);
    },
    remove: () => rmSync(dir, { recursive: true, force: true }),
  };
}

const CAPABILITIES = ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_KILL", "CAP_SETGID", "CAP_SETUID", "CAP_NET_BIND_SERVICE"];

export function spec(rootfs: string, args: string[], terminal = false) {
  return {
    ociVersion: "1.0.2",
    process: {
      terminal,
      user: { uid: 0, gid: 0 },
      args,
      env: ["PATH=/bin", "TERM=xterm"],
      cwd: "/",
      capabilities: { bounding: CAPABILITIES, effective: CAPABILITIES, permitted: CAPABILITIES },
      noNewPrivileges: true,
    },
    root: { path: rootfs, readonly: false },
    hostname: "jubako-test",
    mounts: [
      { destination: "/proc", type: "proc", source: "proc" },
      { destination: "/dev", type: "tmpfs", source: "tmpfs", options: ["nosuid", "strictatime", "mode=755", "size=65536k"] },
      {
        destination: "/dev/pts",
        type: "devpts",
        source: "devpts",
        options: ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"],
      },
    ],
    linux: {
      cgroupsPath: `/jubako-shim-test-${Math.random().toString(36).slice(2)}`,
      namespaces: [{ type: "pid" }, { type: "ipc" }, { type: "uts" }, { type: "mount" }],
      resources: { devices: [{ allow: true, access: "rwm" }] },
    },
  };
}

/** A bundle directory in `place`. */
export function bundle(
  place: Place,
  id: string,
  args: string[],
  terminal = false,
  resources: object = {},
  annotations: object = {},
): string {
  const dir = `${place.dir}/bundle-${id}`;
  mkdirSync(dir, { recursive: true });
  const config = spec(place.rootfs, args, terminal);
  Object.assign(config.linux.resources, resources);
  writeFileSync(`${dir}/config.json`, JSON.stringify({ ...config, annotations }));
  return dir;
}

export function fifo(path: string): string {
  check(binding.syscall(SYS.mknod, path, 0o010600, 0), `mkfifo ${path}`);
  return path;
}

/** Collects a FIFO until its last writer closes it; `text` is what came so far. */
export function reader(path: string): { text(): string; end: Promise<string>; until(part: string): Promise<void>; close(): void } {
  const fd = open(path, O_RDONLY | O_NONBLOCK);
  let text = "";
  const notify: (() => void)[] = [];
  let finish: (text: string) => void = () => {};
  const end = new Promise<string>((resolve) => {
    finish = resolve;
  });
  let open_ = true;
  const shut = (): void => {
    if (!open_) return;
    open_ = false;
    watching.close();
    close(fd);
    finish(text);
  };
  const watching = watch(fd, EPOLLIN, () => {
    const buffer = Buffer.alloc(65536);
    const n = read(fd, buffer);
    if (n === undefined) return;
    if (n === 0) shut();
    else text += buffer.subarray(0, n).toString();
    for (const call of notify.splice(0)) call();
  });
  return {
    text: () => text,
    end,
    close: shut,
    async until(part) {
      const limit = Date.now() + 5000;
      while (!text.includes(part)) {
        if (Date.now() > limit) throw new Error(`${JSON.stringify(part)} never came; there is ${JSON.stringify(text)}`);
        await Promise.race([new Promise<void>((resolve) => notify.push(resolve)), new Promise((resolve) => setTimeout(resolve, 200))]);
      }
    },
  };
}
