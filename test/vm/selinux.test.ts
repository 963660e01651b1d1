// SELinux' labels, in a virtual machine that has it switched on with a policy made for this: a process' own, an exec's, and those of mounts. One boot, one script;
// the tests read what it said.

import { beforeAll, describe, expect, test } from "bun:test";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { lacks } from "../support/engine.ts";
import { BOOT_MS, boot, machineLacks, type Outcome, readers } from "./boot.ts";
import { POLICY } from "./selinux-policy.ts";

/** The policy as the kernel takes it; version 33 is Linux 5.5's. */
function compiled(): Buffer {
  const dir = mkdtempSync(join(tmpdir(), "jubako-policy-"));
  try {
    writeFileSync(join(dir, "policy.cil"), POLICY);
    const made = spawnSync("secilc", ["-c", "33", "-o", "policy", "-f", "/dev/null", "policy.cil"], { cwd: dir, encoding: "utf8" });
    if (made.status !== 0) throw new Error(`secilc: ${made.stdout}${made.stderr}`);
    return readFileSync(join(dir, "policy"));
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

describe.skipIf(lacks("secilc") || machineLacks())("SELinux", () => {
  let outcome: Outcome;
  const { fields } = readers(() => outcome);

  beforeAll(async () => {
    outcome = await boot({ files: { policy: { data: compiled() } }, commandLine: "security=selinux selinux=1 enforcing=0", script });
  }, BOOT_MS + 10_000);

  test("ends well", () => {
    expect({ status: outcome.status, output: outcome.output }).toMatchObject({ status: 0 });
  });

  test("the process has the label that config.json names, an exec the same or its own", () => {
    expect(fields("process")).toEqual({
      enabled: "true",
      none: "system_u:system_r:kernel_t:s0",
      label: "system_u:system_r:container_t:s0",
      exec: "system_u:system_r:container_t:s0",
      "exec other": "system_u:system_r:other_t:s0",
      unknown: expect.stringContaining("set the security label of the program: EINVAL"),
    });
  });

  test("mounts are made with linux.mountLabel as their context", () => {
    expect(fields("mounts")).toEqual({ shm: "yes", proc: "no" });
  });
});

const script = `
set -u
mount -t selinuxfs selinuxfs /sys/fs/selinux
cat /policy >/sys/fs/selinux/load || exit 1
B=/tmp/bundle; mkdir -p $B/rootfs/bin; cp /bin/busybox $B/rootfs/bin/; for name in sh cat sleep; do ln -s busybox $B/rootfs/bin/$name; done
cd $B; jubako-runtime spec
sed -i 's/"terminal": true/"terminal": false/; s/"noNewPrivileges": true/"noNewPrivileges": false/' config.json
label() { sed "s|\\"cwd\\": \\"/\\",|\\"cwd\\": \\"/\\", \\"selinuxLabel\\": \\"system_u:system_r:$1:s0\\",|" config.json >with; }
args() { mkdir -p /tmp/w; sed "s|\\"sh\\"\\$|$1|; s|\\"path\\": \\"rootfs\\"|\\"path\\": \\"/tmp/bundle/rootfs\\"|" with >/tmp/w/config.json; }
rt() { jubako-runtime run -b /tmp/w "$@" </dev/null; }
echo "== process"
echo "enabled=$(jubako-runtime features | tr -d ' \\n' | grep -o '"selinux":{"enabled":[a-z]*' | sed 's/.*://')"
cp config.json with; args '"cat", "/proc/self/attr/current"'; echo "none=$(rt one 2>&1 | tr -d '\\0')"
label container_t; args '"cat", "/proc/self/attr/current"'; echo "label=$(rt one 2>&1 | tr -d '\\0')"
args '"sleep", "1000"'; rt -d two >/dev/null 2>&1
echo "exec=$(jubako-runtime exec two cat /proc/self/attr/current 2>&1 | tr -d '\\0')"
echo "exec other=$(jubako-runtime exec --process-label system_u:system_r:other_t:s0 two cat /proc/self/attr/current 2>&1 | tr -d '\\0')"
jubako-runtime delete --force two
label nowhere_t; args '"sh"'; echo "unknown=$(rt one 2>&1 | tail -1)"
echo "== mounts"
label container_t
sed -i 's|"linux": {|"linux": { "mountLabel": "system_u:object_r:container_file_t:s0",|' with
args '"cat", "/proc/self/mountinfo"'
rt one >/tmp/out 2>&1
shown() { grep " $1 " /tmp/out | grep -q 'context="\\?system_u:object_r:container_file_t:s0' && echo yes || echo no; }
echo "shm=$(shown /dev/shm)"
echo "proc=$(shown /proc)"
exit 0
`;
