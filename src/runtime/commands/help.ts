// What --help and --version print. The names are ours; that of runc stands there for those who look for it.

interface Help {
  summary: string;
  arguments: string;
  options: [flag: string, text: string][];
}

const bundle: [string, string] = ["--bundle DIR, -b DIR", "the bundle (default: the current directory)"];
const consoleSocket: [string, string] = ["--console-socket PATH", "unix socket that gets the master of the terminal"];
const pidFile: [string, string] = ["--pid-file FILE", "where the process' pid is written"];
const pidfdSocket: [string, string] = ["--pidfd-socket PATH", "a socket that receives a pidfd of the process"];
const detach: [string, string] = ["--detach, -d", "leave it running and return"];
const creation: [string, string][] = [
  bundle,
  consoleSocket,
  pidFile,
  pidfdSocket,
  ["--no-pivot", "chroot instead of pivot_root, for roots in RAM disks"],
  ["--no-new-keyring", "keep the caller's session keyring"],
  ["--preserve-fds N", "let N more descriptors through, from 3 on"],
  ["--dry-run [--json]", "print every step and do nothing"],
];
const criu: [string, string][] = [
  ["--image-path DIR", 'where the images are (default: "checkpoint")'],
  ["--work-path DIR", "where CRIU works and writes its log (default: the images' directory)"],
  ["--tcp-established", "open TCP connections, too"],
  ["--ext-unix-sk", "unix sockets whose other end is outside"],
  ["--shell-job", "a session and a terminal that come from outside"],
  ["--file-locks", "file locks"],
  ["--manage-cgroups-mode MODE", "soft (default), full, strict or ignore"],
  ["--empty-ns network", "make the network namespace without what is in it"],
  ["--auto-dedup", "leave out memory that a parent image has"],
  ["--lazy-pages", "memory on demand, by userfaultfd"],
];
const format = (text: string): [string, string] => ["--format FORMAT, -f FORMAT", text];

export const helps: Record<string, Help> = {
  checkpoint: {
    summary: "checkpoint a running container",
    arguments: "ID",
    options: [
      ...criu,
      ["--parent-path DIR", "images of an earlier --pre-dump, relative to --image-path"],
      ["--pre-dump", "write the memory only, and let it run on"],
      ["--leave-running", "let it run on"],
      ["--page-server ADDRESS:PORT", "send the memory there"],
      ["--status-fd FD", "gets a byte once lazy pages can be asked for"],
    ],
  },
  create: { summary: "create a container, whose program waits for start", arguments: "ID", options: creation },
  delete: { summary: "delete a container that has stopped", arguments: "ID", options: [["--force, -f", "end it first"]] },
  events: {
    summary: "print a container's numbers, and out-of-memory events",
    arguments: "ID",
    options: [
      ["--interval DURATION", "between two lines (default: 5s)"],
      ["--stats", "once"],
    ],
  },
  exec: {
    summary: "run a further process in a container",
    arguments: "ID COMMAND [ARGUMENTS] | --process FILE ID",
    options: [
      consoleSocket,
      ["--cwd DIR", "its working directory"],
      ["--env NAME=VALUE, -e NAME=VALUE", "more environment"],
      ["--tty, -t", "with a terminal"],
      ["--user UID[:GID], -u UID[:GID]", "as whom"],
      ["--additional-gids GID, -g GID", "more groups"],
      ["--process FILE, -p FILE", "all of it from a file (the process of config.json)"],
      detach,
      pidFile,
      pidfdSocket,
      ["--process-label LABEL", "SELinux' label"],
      ["--apparmor PROFILE", "AppArmor's profile"],
      ["--no-new-privs", "allow no new privileges"],
      ["--cap NAME, -c NAME", "one more capability"],
      ["--preserve-fds N", "let N more descriptors through, from 3 on"],
      ["--cgroup [CONTROLLER:]PATH", "in a cgroup below the container's"],
      ["--ignore-paused", "also in a paused container"],
    ],
  },
  explain: {
    summary: "print every step that would create a bundle's container, and why; do nothing",
    arguments: "BUNDLE",
    options: [
      ["--json", "as JSON"],
      ["--id ID", "of the container"],
    ],
  },
  features: { summary: "print what this runtime can do", arguments: "", options: [] },
  kill: {
    summary: "send a signal (default: SIGTERM) to a container's init",
    arguments: "ID [SIGNAL]",
    options: [["--all, -a", "to all of its processes"]],
  },
  list: {
    summary: "list the containers below --root",
    arguments: "",
    options: [format("table (default) or json"), ["--quiet, -q", "ids only"]],
  },
  pause: { summary: "freeze a container's processes", arguments: "ID", options: [] },
  ps: { summary: "list a container's processes", arguments: "ID [PS OPTIONS]", options: [format("table (default) or json")] },
  restore: {
    summary: "restore a container from a checkpoint",
    arguments: "ID",
    options: [
      ...criu,
      bundle,
      consoleSocket,
      pidFile,
      pidfdSocket,
      detach,
      ["--no-subreaper", "do not reap what the container leaves"],
      ["--lsm-profile PROFILE", "another profile of AppArmor or SELinux: apparmor:NAME, selinux:LABEL"],
      ["--lsm-mount-context CONTEXT", "another SELinux context for mounts"],
    ],
  },
  resume: { summary: "thaw a container's processes", arguments: "ID", options: [] },
  run: {
    summary: "create and start a container",
    arguments: "ID",
    options: [...creation, detach, ["--keep", "do not delete it when it has ended"]],
  },
  spec: {
    summary: "write an example of config.json",
    arguments: "",
    options: [
      ["--bundle DIR, -b DIR", "where to (default: the current directory)"],
      ["--rootless", "for a user without rights"],
    ],
  },
  start: { summary: "run the program of a created container", arguments: "ID", options: [] },
  state: { summary: "print a container's state", arguments: "ID", options: [] },
  update: {
    summary: "change a container's limits",
    arguments: "ID",
    options: [
      ["--resources FILE, -r FILE", "from a file (linux.resources of config.json), or - for stdin"],
      ["--memory, --memory-reservation, --memory-swap BYTES", "with a unit, -1: no limit"],
      ["--cpu-period, --cpu-quota, --cpu-burst, --cpu-share N", "time of the processors"],
      ["--cpu-rt-period, --cpu-rt-runtime, --cpu-idle N", "the same"],
      ["--cpuset-cpus, --cpuset-mems LIST", "which of them, and which memory"],
      ["--pids-limit, --blkio-weight N", "processes; weight of i/o"],
    ],
  },
};

const globals: [string, string][] = [
  ["--root DIR", 'where containers are kept (default "/run/jubako/runtime"; for users $XDG_RUNTIME_DIR/jubako/runtime)'],
  ["--systemd-cgroup", "cgroups are units of systemd's; cgroupsPath is SLICE:PREFIX:NAME"],
  ["--rootless VALUE", "true, false or auto (default): do without cgroups that cannot be had"],
  ["--log FILE", "where to write the log (default: stderr)"],
  ["--log-format FORMAT", "text (default) or json"],
  ["--debug", "log more"],
  ["--criu PATH", "the program of checkpoint and restore"],
  ["--version, -v", ""],
  ["--help, -h", ""],
];

function options(list: readonly [string, string][]): string {
  const width = Math.max(...list.map(([flag]) => flag.length)) + 2;
  return list.map(([flag, text]) => `   ${text ? flag.padEnd(width) : flag}${text}\n`).join("");
}

export function usage(): string {
  const names = Object.entries(helps).map(([name, { summary }]): [string, string] => [name, summary]);
  return [
    "NAME:\n   jubako-runtime, in the place of runc - Open Container Initiative runtime\n",
    "\nUSAGE:\n   jubako-runtime [global options] command [command options] [arguments]\n",
    `\nCOMMANDS:\n${options(names)}`,
    `\nGLOBAL OPTIONS:\n${options(globals)}`,
  ].join("");
}

export function commandUsage(name: string): string {
  const help = helps[name];
  if (!help) return usage();
  return [
    `NAME:\n   jubako-runtime ${name}, in the place of runc ${name} - ${help.summary}\n`,
    `\nUSAGE:\n   jubako-runtime ${name} ${help.options.length ? "[command options] " : ""}${help.arguments}\n`,
    help.options.length ? `\nOPTIONS:\n${options(help.options)}` : "",
  ].join("");
}

export const version = () => "jubako-runtime version 0.1.0, in the place of runc version 1.2.0\ncommit: v0.1.0\nspec: 1.3.0\n";
