// A template filled in is, byte for byte, what planning the container itself gives.
import { expect, test } from "bun:test";
import type { Spec } from "../../oci/runtime-spec.ts";
import { exampleSpec } from "../spec.ts";
import { type CreateInput, planCreate } from "./create.ts";
import { facts } from "./harness.ts";
import { blank, fillIn, templateOf } from "./template.ts";

/** A container as an engine makes it, named after `id` throughout. */
function input(id: string, edit: (spec: Spec) => void = () => {}): CreateInput {
  const spec = exampleSpec();
  spec.process!.args = ["program", `--name=${id}`, "é/ü"];
  spec.process!.env = ["PATH=/bin:/usr/bin", `HOSTNAME=${id.slice(0, 12)}`, "A=é", "B=", `ID=${id}`];
  spec.hostname = id.slice(0, 12);
  spec.annotations = { id };
  spec.mounts!.push(
    { destination: "/etc/hosts", type: "bind", source: `/data/${id}/hosts`, options: ["rbind", "rprivate"] },
    { destination: "/shared", source: `/data/${id}/dir`, options: ["bind", "rw", "shared"] },
    { destination: "/beside", type: "bind", source: `beside-${id}`, options: ["ro"] },
    { destination: "/sys/fs/cgroup", type: "cgroup", source: "cgroup", options: ["ro"] },
  );
  for (const namespace of spec.linux!.namespaces!) if (namespace.type === "network") namespace.path = `/run/netns/${id}`;
  edit(spec);
  const cgroup = (name: string) => `/sys/fs/cgroup/${name}/group/${id}`;
  return {
    id,
    bundle: `/bundles/${id}`,
    spec,
    rootfs: [
      {
        type: "overlay",
        source: "overlay",
        options: [`lowerdir=/layers/1:/layers/${id}`, `upperdir=/upper/${id}`, `workdir=/work/${id}`, "index=off"],
      },
    ],
    cgroup: {
      version: 1,
      directories: [cgroup("cpu"), cgroup("unified")],
      writes: [{ file: `${cgroup("cpu")}/cpu.shares`, value: "512", why: "set cpu shares" }],
      join: [cgroup("cpu")],
      into: cgroup("unified"),
      mounts: [{ name: "cpu", links: ["cpuacct"], directory: cgroup("cpu") }],
    },
    seccomp: undefined,
    keeper: true,
    holds: 2,
    holdStdin: true,
    ownStdio: [true, true, true],
    preserved: 0,
    noPivot: false,
    keyring: true,
    pauseForHooks: false,
  };
}

const ids = ["0123456789abcdef0123", "fedcba9876543210fedc", "a//b../c d+e,f=g&hi~"] as const;
const edits: [name: string, edit: (spec: Spec) => void][] = [
  ["as it is", () => {}],
  [
    "with user namespace",
    (spec) => {
      spec.linux!.namespaces!.push({ type: "user" });
      spec.linux!.uidMappings = [{ containerID: 0, hostID: 100000, size: 65536 }];
      spec.linux!.gidMappings = spec.linux!.uidMappings;
    },
  ],
  [
    "with a terminal",
    (spec) => {
      spec.process!.terminal = true;
    },
  ],
];

test.each(edits)("a container %s", (_, edit) => {
  const first = blank(input(ids[0], edit), facts)!;
  const template = templateOf(planCreate(first.input, first.facts).tape, first.names)!;
  expect(template.blanks.length).toBeGreaterThan(15);
  for (const id of ids) {
    const { key, names } = blank(input(id, edit), facts)!;
    expect(key === first.key).toBe(true);
    const filled = fillIn(template, names);
    expect(Buffer.compare(filled, planCreate(input(id, edit), facts).tape.encode())).toBe(0);
  }
});

test("what decides on the plan makes another key, or none", () => {
  const key = (id: string, edit?: (spec: Spec) => void) => blank(input(id, edit), facts)?.key;
  const first = key(ids[0]);
  expect(key("0123") === first).toBe(false);
  const others: ((spec: Spec) => void)[] = [
    (spec) => {
      spec.process!.args![0] = "other";
    },
    (spec) => {
      spec.process!.env![0] = "PATH=/bin:/opt/bin";
    },
    (spec) => spec.mounts!.push({ destination: "/more", type: "tmpfs" }),
    (spec) => {
      // A file in the place of a directory.
      spec.mounts!.at(-3)!.source = "/data/0123456789abcdef0123/fil";
    },
    (spec) => {
      spec.process!.capabilities!.bounding = [];
    },
  ];
  for (const edit of others) expect(key(ids[0], edit) === first).toBe(false);
  expect(key(ids[0], (spec) => spec.process!.env!.push("X=\x01"))).toBeUndefined();
  expect(key(ids[0], (spec) => spec.mounts!.push({ destination: "/t", type: "tmpfs", options: ["tmpcopyup"] }))).toBeUndefined();
  const rootPath = (spec: Spec) => (spec.root!.path.startsWith("/") ? spec.root!.path : `/bundles/${ids[0]}/${spec.root!.path}`);
  const bind = (destination: string, source: string) => ({ destination, type: "bind", source, options: ["bind"] });
  expect(key(ids[0], (spec) => spec.mounts!.push(bind("/more", `${rootPath(spec)}/dev/dir`)))).toBeUndefined();
  expect(key(ids[0], (spec) => spec.mounts!.push(bind(`${rootPath(spec)}/more`, "/data/dir")))).toBeUndefined();
});
