// The mounts that config.json can ask for, by the command line and real containers of busybox.
import { expect } from "bun:test";
import { chownSync, mkdirSync, readFileSync, readlinkSync, symlinkSync, writeFileSync } from "node:fs";
import type { Spec } from "../oci/runtime-spec.ts";
import { bundles, real } from "./harness.ts";

const { id, work, bundle, jubako, run } = bundles("mounts");

real("mounts go where a dangling link of the image leads, inside", () => {
  symlinkSync("/run/made/resolv.conf", `${work}/rootfs/resolv`);
  symlinkSync("../../../../../../made/../made/too", `${work}/rootfs/bin/dangling`);
  symlinkSync("/loop", `${work}/rootfs/loop`);
  writeFileSync(`${work}/file`, "nameserver ::1\n");
  const show = run(["sh", "-c", "cat /run/made/resolv.conf; grep -c ' /made/too/deep ' /proc/self/mountinfo"], (spec) => {
    spec.mounts!.push({ destination: "/resolv", type: "bind", source: `${work}/file`, options: ["bind", "ro"] });
    spec.mounts!.push({ destination: "/bin/dangling/deep", type: "tmpfs", source: "tmpfs" });
  });
  expect(show).toMatchObject({ status: 0, stdout: "nameserver ::1\n1\n", stderr: "" });
  // In a user namespace what is made belongs to its root.
  symlinkSync("/run/mapped/deep", `${work}/rootfs/mapped`);
  Bun.spawnSync(["chmod", "755", work]);
  const owner = run(["stat", "-c", "%u:%g", "/run/mapped"], (spec) => {
    const map = [{ containerID: 0, hostID: 300_000, size: 1000 }];
    spec.linux!.namespaces!.push({ type: "user" });
    Object.assign(spec.linux!, { uidMappings: map, gidMappings: map });
    spec.mounts!.push({ destination: "/mapped", type: "tmpfs", source: "tmpfs" });
  });
  expect(owner).toMatchObject({ status: 0, stdout: "0:0\n" });
  const loop = run(["true"], (spec) => spec.mounts!.push({ destination: "/loop", type: "tmpfs", source: "tmpfs" }));
  expect(loop.stderr).toContain("ELOOP");
});

real("without a mount namespace of its own a container has its root by chroot, and its mounts go with it", () => {
  const noMounts = (spec: Spec) => {
    spec.linux!.namespaces = spec.linux!.namespaces!.filter(({ type }) => type !== "mount");
    spec.linux!.maskedPaths = [];
    spec.linux!.readonlyPaths = [];
  };
  const shown = run(["sh", "-c", "readlink /proc/self/ns/mnt; ls /"], noMounts);
  expect(shown.stderr).toBe("");
  expect(shown.stdout).toContain(`${readlinkSync("/proc/self/ns/mnt")}\nbin\n`);
  expect(readFileSync("/proc/self/mountinfo", "utf8")).not.toContain(work);
  const masked = run(["true"], (spec) => {
    spec.linux!.namespaces = spec.linux!.namespaces!.filter(({ type }) => type !== "mount");
  });
  expect(masked.stderr).toContain("without a private MNT namespace");
});

real("without pivot_root no whole proc is in sight, wherever it is mounted: a user namespace inside cannot mount one", () => {
  mkdirSync(`${work}/elsewhere`);
  Bun.spawnSync(["mount", "-t", "proc", "proc", `${work}/elsewhere`]);
  try {
    bundle(["busybox", "unshare", "-mrpf", "busybox", "mount", "-t", "proc", "none", "/proc"], ({ process }) => {
      for (const set of ["bounding", "permitted"] as const) process!.capabilities![set]!.push("CAP_SETFCAP");
    });
    const { status, stderr } = jubako("run", "--no-pivot", "-b", work, id);
    expect(status).toBe(1);
    expect(stderr).toContain("permission denied");
  } finally {
    Bun.spawnSync(["umount", `${work}/elsewhere`]);
  }
});

real("recursive mount attributes, and the root's propagation", () => {
  mkdirSync(`${work}/tree/inner`, { recursive: true });
  Bun.spawnSync(["mount", "-t", "tmpfs", "tmpfs", `${work}/tree/inner`]);
  try {
    const shown = run(["grep", "-E", " /(a|b)(/inner)? | / / ", "/proc/self/mountinfo"], (spec) => {
      spec.mounts!.push({ destination: "/a", type: "bind", source: `${work}/tree`, options: ["rbind", "rro", "rnosuid"] });
      spec.mounts!.push({
        destination: "/b",
        type: "bind",
        source: `${work}/tree`,
        options: ["rbind", "ro", "rprivate", "noatime", "rnodiratime"],
      });
      spec.linux!.rootfsPropagation = "shared";
    });
    const options = Object.fromEntries(
      shown.stdout
        .trim()
        .split("\n")
        .map((line) => [line.split(" ")[4], line.split(" ").slice(5, 7).join(" ")]),
    );
    expect(options["/a/inner"]).toMatch(/^ro,nosuid/);
    expect(options["/b"]).toMatch(/^ro,noatime,nodiratime/);
    expect(options["/b/inner"]).toMatch(/^rw/);
  } finally {
    Bun.spawnSync(["umount", `${work}/tree/inner`]);
  }
});

real("idmapped mounts: by their own mappings, by the container's, recursively, and never by none", () => {
  mkdirSync(`${work}/owned/inner`, { recursive: true });
  Bun.spawnSync(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", `${work}/owned/inner`]);
  Bun.spawnSync(["chmod", "755", work]);
  try {
    for (const file of [`${work}/owned/file`, `${work}/owned/inner/file`]) {
      writeFileSync(file, "");
      chownSync(file, 5, 5);
    }
    const owners = (change: (spec: Spec) => void) => run(["stat", "-c", "%u", "/idmap/file", "/idmap/inner/file"], change);
    const mount = (option: string, mapped: object) => ({
      destination: "/idmap",
      type: "bind",
      source: `${work}/owned`,
      options: ["rbind", ...(option ? [option] : [])],
      ...mapped,
    });
    const map = (hostID: number) => [{ containerID: 0, hostID, size: 1000 }];
    const mappings = (hostID: number) => ({ uidMappings: map(hostID), gidMappings: map(hostID) });
    expect(owners((spec) => spec.mounts!.push(mount("idmap", mappings(7000))))).toMatchObject({ status: 0, stdout: "7005\n5\n" });
    expect(owners((spec) => spec.mounts!.push(mount("ridmap", mappings(7000))))).toMatchObject({ status: 0, stdout: "7005\n7005\n" });
    // The container's own: who is 5 on disk is 5 inside, whoever that is outside.
    const inUser = (option: string) => (spec: Spec) => {
      spec.linux!.namespaces!.push({ type: "user" });
      Object.assign(spec.linux!, mappings(300_000));
      spec.mounts!.push(mount(option, {}));
    };
    expect(owners(inUser("ridmap"))).toMatchObject({ status: 0, stdout: "5\n5\n" });
    expect(owners(inUser("")).stdout).toBe("65534\n65534\n");
    expect(owners((spec) => spec.mounts!.push(mount("idmap", {}))).stderr).toContain("mappings of both user and group ids are needed");
  } finally {
    Bun.spawnSync(["umount", `${work}/owned/inner`]);
  }
});

real("a bind whose source earlier mounts make below the root is of what they made", () => {
  for (const [directory, link] of [
    ["a/x", "a"],
    ["b/y", "b"],
    ["c/z", "c"],
  ] as const) {
    mkdirSync(`${work}/tree-of/${directory}`, { recursive: true });
    writeFileSync(`${work}/tree-of/${directory}/file`, `${directory}\n`);
    symlinkSync(link, `${work}/tree-of/sym-${link}`);
  }
  mkdirSync(`${work}/rootfs/mnt`);
  writeFileSync(`${work}/tree-of/a/plain`, "a plain file\n");
  // An image's link out of the root leads nowhere but inside.
  symlinkSync("../../../../../../../../etc/hostname", `${work}/tree-of/a/out`);
  const root = `${work}/rootfs`;
  const bind = (source: string, destination: string, ...options: string[]) => ({
    destination,
    type: "bind",
    source,
    options: ["rprivate", ...(options.length ? options : ["bind"])],
  });
  const map = [{ containerID: 0, hostID: 100_000, size: 65_536 }];
  const deep = "/final/x/y/z/z/x/y/z/x/file";
  const show = (args: string[], change: (spec: Spec) => void, ...more: string[]) =>
    run(args, (spec) => {
      spec.mounts!.push(
        bind(`${work}/tree-of/a`, "/mnt"),
        bind(`${work}/tree-of/sym-b`, "/mnt/x"),
        bind(`${work}/tree-of/c`, "/mnt/x/y"),
        bind(`${work}/tree-of/sym-a`, "/mnt/x/y/z"),
        bind(`${root}/mnt/x`, `${root}/mnt/x/y/z/x`, "rbind", ...more),
        bind(`${root}/mnt/x/y`, `${root}/mnt/x/y/z`, "rbind", ...more),
        bind(`${root}/mnt`, `${root}/final`, "rbind", ...more),
      );
      change(spec);
    });
  expect(show(["cat", deep], () => {})).toMatchObject({ status: 0, stdout: "a/x\n", stderr: "" });
  const inUser = (spec: Spec) => {
    spec.linux!.namespaces!.push({ type: "user" });
    Object.assign(spec.linux!, { uidMappings: map, gidMappings: map });
  };
  expect(show(["cat", deep], inUser)).toMatchObject({ status: 0, stdout: "a/x\n", stderr: "" });
  const mapped = show(["stat", "-c", "%u", "/final", deep], (spec) => {
    for (const mount of spec.mounts!.slice(-3)) Object.assign(mount, { uidMappings: map, gidMappings: map });
  });
  expect(mapped).toMatchObject({ status: 0, stdout: "100000\n0\n", stderr: "" });
  // In a user namespace it is the maker who maps: the owner on disk is root inside.
  const both = show(["stat", "-c", "%u", "/final", deep], (spec) => {
    inUser(spec);
    for (const mount of spec.mounts!.slice(-3)) Object.assign(mount, { uidMappings: map, gidMappings: map });
  });
  expect(both).toMatchObject({ status: 0, stdout: "0\n65534\n", stderr: "" });
  // A file, a new file system of the container's, a directory to be made for both.
  const others = show(["sh", "-c", "cat /new/one/file; grep -c ' /new/two/shm .*tmpfs' /proc/self/mountinfo"], (spec) => {
    spec.mounts!.push(bind(`${root}/mnt/plain`, "/new/one/file"), bind(`${root}/dev/shm`, "/new/two/shm"));
  });
  expect(others).toMatchObject({ status: 0, stdout: "a plain file\n1\n", stderr: "" });
  const out = show(["true"], (spec) => spec.mounts!.push(bind(`${root}/mnt/out`, "/out")));
  expect(out.status).toBe(1);
  expect(out.stderr).toContain("no such file or directory");
});

real("a bind that is shared with the host is its source's peer, and stands in the order of config.json", () => {
  const source = `${work}/shared`;
  mkdirSync(source);
  expect(Bun.spawnSync(["mount", "-t", "tmpfs", "jubako-shared", source]).exitCode).toBe(0);
  try {
    expect(Bun.spawnSync(["mount", "--make-shared", source]).exitCode).toBe(0);
    const group = (line: string | undefined) => / (shared:\d+) /.exec(line ?? "")?.[1];
    const host = readFileSync("/proc/self/mountinfo", "utf8").split("\n");
    const peers = group(host.find((line) => line.includes(` ${source} `)));
    expect(peers).toBeString();
    const shown = run(["grep", "-E", " /(one|two|three|four) ", "/proc/self/mountinfo"], (spec) => {
      const bind = (destination: string, ...options: string[]) =>
        spec.mounts!.push({ destination, type: "bind", source, options: ["bind", ...options] });
      bind("/one");
      bind("/two", "shared");
      spec.mounts!.push({ destination: "/three", type: "tmpfs", source: "tmpfs" });
      bind("/four", "shared");
    });
    expect(shown).toMatchObject({ status: 0, stderr: "" });
    const lines = shown.stdout.trimEnd().split("\n");
    expect(lines.map((line) => line.split(" ")[4])).toEqual(["/one", "/two", "/three", "/four"]);
    expect(lines.map(group)).toEqual([undefined, peers, undefined, peers]);
  } finally {
    Bun.spawnSync(["umount", source]);
  }
});
