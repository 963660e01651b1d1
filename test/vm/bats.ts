// Runs runc's bats tests in the virtual machine, where kernel and CRIU know each other: bun test/vm/bats.ts RUNTIME SOURCE IMAGES FILE…
//
//   RUNTIME  an OCI runtime's path; SOURCE  runc's source tree, prepared by test/runtime-suites.sh; IMAGES  where its busybox.tar is
//
// Prints what bats prints, of each file after a line "== NAME". The programs that the tests use are this machine's.
// Environment: BATS_SYSTEMD=1 for a machine that systemd runs, whose units the cgroups are; BATS_MINUTES;
// BATS_LOG=FILE takes what the machine writes, as it does.
import { spawnSync } from "node:child_process";
import { appendFileSync, existsSync, lstatSync, mkdtempSync, readdirSync, readlinkSync, realpathSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { boot, libraries, machineLacks } from "./boot.ts";
import type { Entry } from "./initramfs.ts";

const PACKAGES = [
  "bash",
  "bats",
  "jq",
  "gawk",
  "coreutils",
  "grep",
  "sed",
  "tar",
  "gzip",
  "findutils",
  "util-linux",
  "iproute2",
  "iptables",
  "criu",
  "procps",
  "mount",
  "bsdutils",
  "hostname",
];
const MINUTES = Number(process.env.BATS_MINUTES ?? 12);
const systemd = process.env.BATS_SYSTEMD === "1";
const log = process.env.BATS_LOG;

function add(files: Record<string, Entry>, path: string, as = path): void {
  const status = lstatSync(path);
  const name = as.slice(1);
  if (status.isSymbolicLink()) files[name] = { link: belowUsr(readlinkSync(path)) };
  else if (status.isDirectory()) for (const each of readdirSync(path)) add(files, join(path, each), join(as, each));
  else if (status.isFile()) files[name] = { from: path, mode: status.mode & 0o7777 };
}

/** busybox' links fill /bin. */
const belowUsr = (path: string) => path.replace(/^\/(s?bin)\//, "/usr/$1/");

/** A package's files, without what is only for people. */
function addPackage(files: Record<string, Entry>, name: string): void {
  for (const path of spawnSync("dpkg", ["-L", name], { encoding: "utf8" }).stdout.split("\n")) {
    if (!path || /\/(doc|man|locale|info|bash-completion|lintian)(\/|$)/.test(path)) continue;
    const status = lstatSync(path, { throwIfNoEntry: false });
    if (!status || status.isDirectory()) continue;
    add(files, path, belowUsr(path));
    if (status.isFile() && /\/s?bin\//.test(path)) Object.assign(files, libraries(path));
  }
}

const [runtime, source, images, ...tests] = process.argv.slice(2);
if (!runtime || !source || !images || tests.length === 0) {
  console.error("bats.ts: RUNTIME SOURCE IMAGES FILE… are needed");
  process.exit(2);
}
if (machineLacks()) process.exit(77);
const files: Record<string, Entry> = {};
for (const name of PACKAGES) addPackage(files, name);
// What Debian's alternatives choose.
files["usr/bin/awk"] = { link: "gawk" };
for (const name of ["iptables", "ip6tables"])
  for (const verb of ["", "-save", "-restore"]) files[`usr/sbin/${name}${verb}`] = { link: "xtables-nft-multi" };
// Programs of the tests' own are below contrib/cmd in older sources, below tests/cmd/_bin in newer ones.
for (const part of ["tests/integration", "contrib/cmd", "tests/cmd/_bin"])
  if (existsSync(join(source, part))) add(files, join(source, part), join("/suite", part));
for (const { from } of Object.values(files).filter((entry) => "from" in entry))
  if (from.startsWith(join(source, "tests/cmd"))) Object.assign(files, libraries(from));
for (const name of ["busybox.tar", "hello.tar"]) add(files, join(images, name), join("/suite", name));
// Programs in C that tests compile are brought along; who asks for one gets it: gcc -static -o PROGRAM SOURCE.
const built = mkdtempSync(join(tmpdir(), "jubako-bats-"));
process.on("exit", () => rmSync(built, { recursive: true, force: true }));
for (const name of readdirSync(join(source, "tests/integration/testdata")).filter((each) => each.endsWith(".c"))) {
  const program = join(built, basename(name, ".c"));
  const made = spawnSync("gcc", ["-static", "-o", program, join(source, "tests/integration/testdata", name)]);
  if (made.status === 0) files[`suite/programs/${basename(name, ".c")}`] = { from: program };
}
files["usr/bin/gcc"] = { mode: 0o755, data: '#!/bin/sh\nexec cp "/suite/programs/$(basename "$4" .c)" "$3"\n' };
const own = basename(runtime).startsWith("jubako");
if (!own) Object.assign(files, libraries(runtime), { "runtime/runc": { from: realpathSync(runtime), mode: 0o755 } });
const plugins = "/usr/lib/x86_64-linux-gnu/xtables";
for (const name of readdirSync(plugins)) add(files, join(plugins, name));
files["suite/tests/integration/get-images.sh"] = {
  mode: 0o755,
  data: `#!/bin/sh\nfor name in BUSYBOX=busybox HELLO=hello DEBIAN=busybox; do echo \${name%=*}_IMAGE=/suite/\${name#*=}.tar; done\n`,
};
const script = `
export PATH=/usr/sbin:/usr/bin:/jubako/bin:/bin LC_ALL=C
ln -s /proc/self/fd /dev/fd
ln -s /usr/bin/bash /bin/bash
mkdir -p /var/run /etc/criu
# Tests wait for it to name network devices.
printf '#!/bin/sh\n' >/bin/udevadm; chmod +x /bin/udevadm
ip link del dummy0 2>/dev/null
echo ID=jubako-vm >/etc/os-release
# Tests look below the root for what the kernel's controllers have.
for controller in $(cat /sys/fs/cgroup/cgroup.controllers); do echo +$controller >/sys/fs/cgroup/cgroup.subtree_control; done
mkdir -p /sys/fs/cgroup/other
cd /suite/tests/integration
export RUNC=${own ? "/jubako/bin/jubako-runtime" : "/runtime/runc"} TMPDIR=/tmp ${systemd ? "RUNC_USE_SYSTEMD=1" : ""}
# A terminal, which runc run and exec expect, at which nothing is typed.
mkfifo /tmp/typed; exec 3<>/tmp/typed
for file in ${tests.map((name) => basename(name)).join(" ")}; do
  echo "== \${file%.bats}"
  script -qec "timeout 900 bats -t $file" /dev/null <&3
done
`;
const diagnoses = ["unix_diag", "tcp_diag", "udp_diag", "raw_diag", "inet_diag", "netlink_diag", "af_packet_diag"];
const { sections, output } = await boot({
  script,
  files,
  memoryMb: 3072,
  timeoutMs: MINUTES * 60_000,
  modules: ["nft_compat", "xt_mark", "dummy", "loop", "bfq", "virtio_pci", "virtio_blk", ...diagnoses],
  whole: true,
  systemd,
  ...(log ? { watch: (chunk: string) => appendFileSync(log, chunk) } : {}),
});
const told = tests.map((name) => basename(name, ".bats")).filter((name) => sections[name] !== undefined);
console.log(told.length ? told.map((name) => `== ${name}\n${sections[name]}`).join("\n") : output);
