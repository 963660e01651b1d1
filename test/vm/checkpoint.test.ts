// checkpoint and restore by CRIU, in a virtual machine: Debian's CRIU does not know the vdso of newer kernels than Debian's own.

import { expect, test } from "bun:test";
import { BOOT_MS, boot, machineLacks } from "./boot.ts";
import { CRIU_MODULES, criuFiles, criuLacks } from "./checkpoint-files.ts";

// Its root file system is written to while it counts, and a bind mount shows how far it is.
const script = `
B=/tmp/bundle
mkdir -p $B/rootfs/bin $B/shared
cp /bin/busybox $B/rootfs/bin/
for name in sh sleep cat cp tty; do ln -s busybox $B/rootfs/bin/$name; done
cd $B
jubako-runtime spec
sed -i 's/"terminal": true/"terminal": false/; s/"readonly": true/"readonly": false/; s|"sh"$|"sh", "/count"|' config.json
sed -i 's|"mounts": \\[|"mounts": [ {"destination": "/shared", "type": "bind", "source": "/tmp/bundle/shared", "options": ["rbind"]},|' config.json
cat > rootfs/count <<'END'
n=0
while :; do
  n=$((n+1)); echo $n > /dev/shm/count; cp /dev/shm/count /shared/count
  [ $n = 1 ] && tty > /shared/tty
  [ -e /shared/stop ] && { echo from $(tty) at the end; exit 7; }
  sleep 0.1
done
END
counts() { a=$(cat shared/count); sleep 1; [ "$(cat shared/count)" -gt "$a" ] && echo counts || echo stands; }

echo == run
jubako-runtime run -d jubako-cr </dev/null >/dev/null 2>&1; echo status $?
sleep 1; counts
echo == refusals
jubako-runtime checkpoint --parent-path /tmp/pre --image-path /tmp/images jubako-cr 2>&1
jubako-runtime checkpoint --parent-path ../none --image-path /tmp/images jubako-cr 2>&1
jubako-runtime checkpoint --manage-cgroups-mode none --image-path /tmp/images jubako-cr 2>&1
jubako-runtime restore --image-path /tmp/images jubako-cr 2>&1
jubako-runtime restore --image-path /tmp/none jubako-none 2>&1
jubako-runtime list -q
echo == pre-dump
jubako-runtime checkpoint --pre-dump --image-path /tmp/pre jubako-cr; echo status $?
counts
echo == leave-running
jubako-runtime checkpoint --leave-running --image-path /tmp/left jubako-cr; echo status $?
counts
echo == checkpoint
jubako-runtime checkpoint --parent-path ../pre --image-path /tmp/images --work-path /tmp/work jubako-cr; echo status $?
jubako-runtime state jubako-cr 2>&1
ls -d /sys/fs/cgroup/jubako-cr 2>&1
counts
echo == restore
before=$(cat shared/count)
jubako-runtime restore -d --image-path /tmp/images --work-path /tmp/work --pid-file /tmp/pid jubako-cr </dev/null >/dev/null 2>/tmp/restore.err; echo status $?
cat /tmp/restore.err
sleep 1; counts; [ "$(jubako-runtime exec jubako-cr cat /dev/shm/count)" -gt "$before" ] && echo goes on
jubako-runtime list | grep -c running
cat /proc/$(cat /tmp/pid)/cgroup
jubako-runtime delete --force jubako-cr; echo status $?
echo == terminal
rm shared/*
sed -i 's/"terminal": false/"terminal": true/' config.json
(jubako-runtime run jubako-tty </dev/null >/tmp/first 2>&1; echo ended $? >>/tmp/first) &
while [ ! -s shared/tty ]; do sleep 0.1; done
jubako-runtime checkpoint --image-path /tmp/tty jubako-tty; echo status $?
(jubako-runtime restore --image-path /tmp/tty jubako-tty </dev/null >/tmp/second 2>&1; echo ended $? >>/tmp/second) &
sleep 2
touch shared/stop
while ! grep -q ended /tmp/second; do sleep 0.1; done
cat /tmp/second
echo == left
jubako-runtime list -q
grep bundle /proc/self/mountinfo
ls -d /sys/fs/cgroup/jubako* 2>/dev/null
`;

test.skipIf(criuLacks() || machineLacks())(
  "a container is written down and goes on where it was",
  async () => {
    const { sections, output } = await boot({ script, files: criuFiles(), modules: CRIU_MODULES });
    const lines = (name: string) => (sections[name] ?? output).trim().split("\n");
    expect(lines("run")).toEqual(["status 0", "counts"]);
    expect(lines("refusals")).toEqual([
      expect.stringContaining("--parent-path must be relative"),
      expect.stringContaining("invalid --parent-path"),
      expect.stringContaining("Invalid manage cgroups mode"),
      expect.stringContaining("container with given ID already exists"),
      expect.stringContaining("/tmp/none has no descriptors.json"),
      "jubako-cr",
    ]);
    expect(lines("pre-dump")).toEqual(["status 0", "counts"]);
    expect(lines("leave-running")).toEqual(["status 0", "counts"]);
    expect(lines("checkpoint")).toEqual([
      "status 0",
      expect.stringContaining("container does not exist"),
      expect.stringContaining("No such file"),
      "stands",
    ]);
    expect(lines("restore")).toEqual(["status 0", "counts", "goes on", "1", "0::/jubako-cr", "status 0"]);
    expect(lines("terminal").map((line) => line.trim())).toEqual(["status 0", "from /dev/pts/0 at the end", "ended 7"]);
    expect(lines("left")).toEqual([""]);
  },
  BOOT_MS + 10_000,
);
