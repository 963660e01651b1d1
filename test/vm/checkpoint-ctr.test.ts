// Checkpoints by containerd's client, in a virtual machine (see checkpoint.test.ts): ctr, our manager, our shim. One boot, one script; the tests read what it said.
import { beforeAll, describe, expect, test } from "bun:test";
import { busyboxTar } from "../support/engine.ts";
import { BOOT_MS, boot, machineLacks, type Outcome, readers } from "./boot.ts";
import { CRIU_MODULES, criuFiles, criuLacks, programFiles } from "./checkpoint-files.ts";

describe.skipIf(criuLacks("ctr") || machineLacks())("checkpoints by ctr", () => {
  let outcome: Outcome;
  const { said, fields } = readers(() => outcome);

  beforeAll(async () => {
    const files = { "busybox.tar": { data: busyboxTar() }, ...criuFiles(), ...programFiles("ctr") };
    outcome = await boot({ files, modules: CRIU_MODULES, script });
  }, BOOT_MS + 10_000);

  test("ends well", () => {
    expect({ status: outcome.status, output: outcome.output }).toMatchObject({ status: 0 });
  });

  test("a checkpoint in the content store and an image of it, restored as another container", () => {
    expect(fields("ctr")).toEqual({ path: "0 yes", counts: "yes", blobs: "0", image: "0", restored: "RUNNING", goes: "yes" });
  });

  test("nothing is left", () => {
    expect(said("left")).toBe("");
  });
});

const script = `
set -u
ln -s /run /var/run; mkdir -p /etc /tmp/d
jubako-containerd --root /var/lib/jc --state /run/jc --address /run/jc.sock >/run/log 2>&1 &
manager=$!
ctr() { command ctr -a /run/jc.sock "$@"; }
for i in $(seq 100); do [ -S /run/jc.sock ] && ctr version >/dev/null 2>&1 && break; sleep 0.2; done
ctr image import /busybox.tar >/dev/null || { cat /run/log; exit 1; }
cat > /tmp/d/count <<'END'
cd /data; n=0
while :; do n=$((n+1)); echo $n >n; sleep 0.1; done
END
counts() { a=$(cat /tmp/d/n); for i in $(seq 30); do [ "$(cat /tmp/d/n)" -gt "$a" ] 2>/dev/null && { echo yes; return; }; sleep 0.1; done; echo no; }
begun() { for i in $(seq 50); do [ -s /tmp/d/n ] && return; sleep 0.1; done; }
echo "== ctr"
image=$(ctr image ls -q | head -1)
ctr run -d --mount type=bind,src=/tmp/d,dst=/data,options=rbind:rw --null-io $image one sh /data/count
begun
ctr task checkpoint --image-path /tmp/ctr one; echo "path=$? $([ -s /tmp/ctr/inventory.img ] && echo yes)"
echo "counts=$(counts)"
ctr task checkpoint one >/dev/null; echo "blobs=$?"
ctr container checkpoint --task --image --rw one test/cp:1; echo "image=$?"
ctr task kill -s 9 one; sleep 0.5; ctr task rm one >/dev/null 2>&1; ctr container rm one
command ctr -a /run/jc.sock container restore --live --rw two test/cp:1 >/dev/null 2>&1 &
for i in $(seq 100); do ctr task ls | grep -q two.*RUNNING && break; sleep 0.2; done
echo "restored=$(ctr task ls | grep two | awk '{print $3}')"
echo "goes=$(counts)"
ctr task kill -s 9 two; sleep 0.5; ctr task rm -f two >/dev/null 2>&1; ctr container rm two
kill $manager; wait $manager

echo "== left"
ls /var/lib/jc/checkpoints
find /sys/fs/cgroup/default -mindepth 1 -type d; pidof sleep criu jubako-keeper; grep -e overlay -e /tmp/d /proc/mounts
echo "== log"; cat /run/log
exit 0
`;
