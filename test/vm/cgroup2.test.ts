// The runtime on cgroup v2, in a machine that has it: one boot, one script; limits are read back from the kernel's files. The tests read what it said.
import { beforeAll, describe, expect, test } from "bun:test";
import { BOOT_MS, boot, machineLacks, type Outcome, readers } from "./boot.ts";
import { bundle } from "./bundle.ts";

const denyAll = { allow: false, access: "rwm" };

describe.skipIf(machineLacks())("cgroup v2: the runtime", () => {
  let outcome: Outcome;
  const { said, fields } = readers(() => outcome);

  beforeAll(async () => {
    outcome = await boot({
      files: {
        "b/limits/config.json": bundle({
          args: ["sleep", "1000"],
          cgroupsPath: "/jubako/limits",
          resources: {
            memory: { limit: 64 << 20, swap: 96 << 20, reservation: 32 << 20 },
            cpu: { shares: 512, quota: 50000, period: 100000, cpus: "0", mems: "0" },
            pids: { limit: 20 },
            devices: [denyAll, { allow: true, type: "c", major: 1, minor: 11, access: "r" }],
            unified: { "memory.high": String(60 << 20) },
          },
        }),
        "b/oom/config.json": bundle({ args: ["tail", "/dev/zero"], resources: { memory: { limit: 16 << 20, swap: 16 << 20 } } }),
        "b/host/config.json": bundle({
          args: ["sh", "-c", "setsid sleep 7777 & setsid sleep 7777 & exec sleep 7777"],
          namespaces: ["mount"],
          cgroupsPath: "/jubako/host",
        }),
        "b/more/config.json": bundle({
          args: ["sleep", "1000"],
          cgroupsPath: "/jubako/more",
          resources: {
            cpu: { idle: 1, quota: 20000, burst: 5000 },
            hugepageLimits: [{ pageSize: "2MB", limit: 4 << 20 }],
            blockIO: { weight: 500 },
            unified: { "memory.oom.group": "1", "pids.max": "77" },
          },
        }),
        "b/slash/config.json": bundle({ args: ["true"], resources: { unified: { "../x.max": "1" } } }),
        "b/form/config.json": bundle({ args: ["true"], resources: { unified: { memory: "1" } } }),
        "b/controller/config.json": bundle({ args: ["true"], resources: { unified: { "net_cls.classid": "1" } } }),
        "b/swap/config.json": bundle({ args: ["true"], resources: { memory: { swap: 1 << 20 } } }),
        "b/nested/config.json": bundle({
          args: [
            "sh",
            "-c",
            "mount -o remount,rw /sys/fs/cgroup; cd /sys/fs/cgroup; mkdir init; echo 1 >init/cgroup.procs; echo +pids >cgroup.subtree_control; exec sleep 1000",
          ],
          cgroupsPath: "/jubako/nested",
        }),
      },
      script: runtimeScript,
    });
  }, BOOT_MS + 10_000);

  test("ends well", () => {
    expect({ status: outcome.status, output: outcome.output }).toMatchObject({ status: 0 });
  });

  test("limits are in the kernel's files", () => {
    expect(fields("limits")).toEqual({
      "memory.max": String(64 << 20),
      "memory.swap.max": String(32 << 20),
      "memory.low": String(32 << 20),
      "memory.high": String(60 << 20),
      "cpu.weight": "59",
      "cpu.max": "50000 100000",
      "cpuset.cpus": "0",
      "cpuset.mems": "0",
      "cpuset.cpus.effective": "0",
      "pids.max": "20",
    });
  });

  test("the process starts in its cgroup (CLONE_INTO_CGROUP) and sees only that, read-only", () => {
    expect(said("explain")).toContain("CLONE_INTO_CGROUP");
    expect(fields("view")).toEqual({ cgroup: "0::/", "memory.max": String(64 << 20), procs: "1", write: "Read-only file system" });
    expect(said("host view")).toBe("0::/jubako/limits");
  });

  test("without a cgroup namespace the whole hierarchy is seen", () => {
    expect(said("host namespace")).toBe("0::/jubako/host\njubako");
  });

  test("device rules by BPF: what is allowed opens, for what is allowed; the rest is refused", () => {
    expect(fields("devices")).toEqual({
      null: "0",
      "kmsg read": "0",
      "kmsg write": "Operation not permitted",
      screen: "Operation not permitted",
      "screen after update": "Operation not permitted",
    });
  });

  test("update changes limits of a living container", () => {
    expect(fields("update")).toEqual({
      "memory.max": String(48 << 20),
      "memory.swap.max": "0",
      "cpu.max": "20000 100000",
      "cpu.weight": "99",
      "pids.max": "5",
    });
  });

  test("an update that the kernel refuses changes nothing", () => {
    expect(fields("update refused")).toEqual({ status: "1", "cpu.max": "20000 100000", "pids.max": "5" });
  });

  test("idle and burst, huge pages, weights, files by name", () => {
    expect(fields("more")).toEqual({
      "cpu.idle": "1",
      "cpu.max": "20000 100000",
      "cpu.max.burst": "5000",
      "hugetlb.2MB.max": String(4 << 20),
      "hugetlb.2MB.rsvd.max": String(4 << 20),
      "io.weight": "default 4950",
      "memory.oom.group": "1",
      "pids.max": "77",
    });
  });

  test("update: what is not said of quota and period stays; idle goes, a weight comes; both limits fall and rise", () => {
    expect(fields("more updated")).toEqual({
      period: "20000 50000",
      quota: "10000 50000",
      weight: "99",
      raised: `${512 << 20} ${128 << 20}`,
      lowered: `${64 << 20} ${32 << 20}`,
      unlimited: "max max",
      usage: expect.stringContaining("rejecting memory limit 4096 <= usage"),
    });
  });

  test("exec --cgroup enters a cgroup below, which must be there", () => {
    expect(fields("below")).toEqual({ cgroup: "/below", missing: expect.stringContaining("no such file or directory") });
  });

  test("what cannot be is refused in words", () => {
    expect(fields("refused")).toEqual({
      slash: expect.stringContaining("must be a file name (no slashes)"),
      form: expect.stringContaining("must be in the form CONTROLLER.PARAMETER"),
      controller: expect.stringContaining("not available"),
      swap: expect.stringContaining("unable to set swap limit without memory limit"),
    });
  });

  test("pids.max stops a fork", () => {
    expect(said("forks")).toContain("can't fork");
  });

  test("pause and resume", () => {
    expect(fields("pause")).toEqual({ paused: "paused 1", resumed: "running 0" });
  });

  test("events --stats tells what is used", () => {
    const { data } = JSON.parse(said("stats"));
    expect(data.memory.usage.limit).toBe(48 << 20);
    expect(data.memory.usage.usage).toBeGreaterThan(0);
    expect(data.pids).toMatchObject({ limit: 5 });
    expect(data.cpu.usage.total).toBeGreaterThan(0);
  });

  test("beyond memory.max the process is killed: 137", () => {
    expect(fields("oom").status).toBe("137");
  });

  test("delete --force ends processes of every session and takes the cgroup away", () => {
    expect(fields("delete")).toEqual({ before: "3", after: "0", cgroup: "gone" });
  });

  test("exec goes where init is, where the container has cgroups of its own", () => {
    expect(said("nested")).toBe("0::/init");
  });

  test("nothing is left", () => {
    expect(said("left")).toBe("");
  });
});

const runtimeScript = `
set -u
mkdir -p /rootfs/bin /rootfs/proc /rootfs/dev /rootfs/sys
cp /bin/busybox /rootfs/bin; /bin/busybox --install -s /rootfs/bin
rt() { jubako-runtime "$@"; }
G=/sys/fs/cgroup/jubako
show() { for f in "$@"; do echo "$f=$(cat $G/limits/$f)"; done; }
why() { sed 's/.*: //'; }

rt run -d -b /b/limits limits </dev/null >/dev/null
echo "== limits"; show memory.max memory.swap.max memory.low memory.high cpu.weight cpu.max cpuset.cpus cpuset.mems cpuset.cpus.effective pids.max
echo "== explain"; rt explain /b/limits | grep clone3
echo "== host view"; sed 's/^.*:jubako/jubako/' /proc/$(head -1 $G/limits/cgroup.procs)/cgroup
rt exec limits sh -c '
echo "== view"
echo "cgroup=$(cat /proc/self/cgroup)"
cd /sys/fs/cgroup
echo "memory.max=$(cat memory.max)"
echo "procs=$(head -n 1 cgroup.procs)"
echo "write=$( (echo 1 >pids.max) 2>&1 | sed "s/.*: //")"
echo "== devices"
mknod /dev/kmsg c 1 11; mknod /dev/screen c 7 0
(echo >/dev/null); echo "null=$?"
(: </dev/kmsg); echo "kmsg read=$?"
echo "kmsg write=$( (: >/dev/kmsg) 2>&1 | sed "s/.*: //")"
echo "screen=$( (: </dev/screen) 2>&1 | sed "s/.*: //")"
'
rt update --memory $((48<<20)) --memory-swap $((48<<20)) --cpu-quota 20000 --cpu-share 1000 --pids-limit 5 limits
echo "screen after update=$(rt exec limits sh -c ': </dev/screen' 2>&1 | why)"
echo "== update"; show memory.max memory.swap.max cpu.max cpu.weight pids.max
echo "== update refused"; rt update --pids-limit 9 --cpu-quota 30000 --cpuset-cpus 77 limits 2>/dev/null; echo "status=$?"; show cpu.max pids.max
echo "== forks"; rt exec limits sh -c 'for i in 1 2 3 4 5 6 7 8; do sleep 1 & done; wait' 2>&1
echo "== pause"
rt pause limits; echo "paused=$(rt state limits | sed -n 's/.*"status": "\\(.*\\)".*/\\1/p') $(cat $G/limits/cgroup.freeze)"
rt resume limits; echo "resumed=$(rt state limits | sed -n 's/.*"status": "\\(.*\\)".*/\\1/p') $(cat $G/limits/cgroup.freeze)"
echo "== stats"; rt events --stats limits
rt delete --force limits
G2=$G; G=$G2/more
show2() { for f in "$@"; do echo "$f=$(cat $G/$f)"; done; }
rt run -d -b /b/more more </dev/null >/dev/null
echo "== more"; show2 cpu.idle cpu.max cpu.max.burst hugetlb.2MB.max hugetlb.2MB.rsvd.max io.weight memory.oom.group pids.max
echo "== more updated"
rt update --cpu-period 50000 more; echo "period=$(cat $G/cpu.max)"
rt update --cpu-quota 10000 more; echo "quota=$(cat $G/cpu.max)"
rt update --cpu-idle 0 --cpu-share 1000 more; echo "weight=$(cat $G/cpu.weight)"
rt update --memory 512M --memory-swap 640M more; echo "raised=$(cat $G/memory.max) $(cat $G/memory.swap.max)"
rt update --memory 64M --memory-swap 96M more; echo "lowered=$(cat $G/memory.max) $(cat $G/memory.swap.max)"
rt update --memory -1 more; echo "unlimited=$(cat $G/memory.max) $(cat $G/memory.swap.max)"
echo "usage=$(echo '{"memory":{"limit":4096,"checkBeforeUpdate":true}}' | rt update -r - more 2>&1)"
echo "== below"
mkdir $G/below
rt update --pids-limit -1 more
echo "cgroup=$(rt exec --cgroup below more cat /proc/self/cgroup | sed 's/^0:://')"
echo "missing=$(rt exec --cgroup nowhere more true 2>&1)"
rmdir $G/below
rt delete --force more
G=$G2
echo "== refused"
for name in slash form controller swap; do echo "$name=$(rt run -b /b/$name $name 2>&1)"; done
echo "== oom"; rt run -b /b/oom oom; echo "status=$?"
rt run -d -b /b/host host </dev/null >/dev/null 2>&1
echo "== host namespace"; rt exec host sh -c 'cat /proc/self/cgroup; ls -d /sys/fs/cgroup/jubako | sed s,.*/,,'
echo "== delete"
echo "before=$(pidof sleep | wc -w)"
rt delete --force host
echo "after=$(pidof sleep | wc -w)"
[ -e $G/host ] && echo "cgroup=there" || echo "cgroup=gone"
rt run -d -b /b/nested nested </dev/null >/dev/null
for i in 1 2 3 4 5 6 7 8 9 10; do [ -d $G/nested/init ] && break; sleep 0.1; done; sleep 0.2
echo "== nested"; rt exec nested cat /proc/self/cgroup
rt delete --force nested
echo "== left"; find $G -mindepth 1 -type d; ls /run/runc /run/jubako-runtime 2>/dev/null | grep -v :; pidof sleep
exit 0
`;
