// What types config.json's members have. Whoever reads the specification later may rely on them; what it does not know is passed over, as the
// specification asks for.
import { invalidArgument } from "../lib/errors.ts";

type Shape = "text" | "integer" | "flag" | { list: Shape } | { byName: Shape } | { [member: string]: Shape };

const texts: Shape = { list: "text" };
const ids: Shape = { list: { containerID: "integer", hostID: "integer", size: "integer" } };
const hooks: Shape = { list: { path: "text", args: texts, env: texts, timeout: "integer" } };
const throttle: Shape = { list: { major: "integer", minor: "integer", rate: "integer" } };
const offset: Shape = { secs: "integer", nanosecs: "integer" };

const processShape: Record<string, Shape> = {
  terminal: "flag",
  consoleSize: { height: "integer", width: "integer" },
  user: { uid: "integer", gid: "integer", umask: "integer", additionalGids: { list: "integer" }, username: "text" },
  args: texts,
  env: texts,
  cwd: "text",
  capabilities: { bounding: texts, effective: texts, inheritable: texts, permitted: texts, ambient: texts },
  rlimits: { list: { type: "text", soft: "integer", hard: "integer" } },
  noNewPrivileges: "flag",
  apparmorProfile: "text",
  oomScoreAdj: "integer",
  selinuxLabel: "text",
  ioPriority: { class: "text", priority: "integer" },
  scheduler: {
    policy: "text",
    nice: "integer",
    priority: "integer",
    flags: texts,
    runtime: "integer",
    deadline: "integer",
    period: "integer",
  },
  execCPUAffinity: { initial: "text", final: "text" },
};

const resources: Shape = {
  devices: { list: { allow: "flag", type: "text", major: "integer", minor: "integer", access: "text" } },
  memory: {
    limit: "integer",
    reservation: "integer",
    swap: "integer",
    kernel: "integer",
    kernelTCP: "integer",
    swappiness: "integer",
    disableOOMKiller: "flag",
    useHierarchy: "flag",
    checkBeforeUpdate: "flag",
  },
  cpu: {
    shares: "integer",
    quota: "integer",
    burst: "integer",
    period: "integer",
    realtimeRuntime: "integer",
    realtimePeriod: "integer",
    cpus: "text",
    mems: "text",
    idle: "integer",
  },
  pids: { limit: "integer" },
  blockIO: {
    weight: "integer",
    leafWeight: "integer",
    weightDevice: { list: { major: "integer", minor: "integer", weight: "integer", leafWeight: "integer" } },
    throttleReadBpsDevice: throttle,
    throttleWriteBpsDevice: throttle,
    throttleReadIOPSDevice: throttle,
    throttleWriteIOPSDevice: throttle,
  },
  hugepageLimits: { list: { pageSize: "text", limit: "integer" } },
  network: { classID: "integer", priorities: { list: { name: "text", priority: "integer" } } },
  rdma: { byName: { hcaHandles: "integer", hcaObjects: "integer" } },
  unified: { byName: "text" },
};

const specShape: Record<string, Shape> = {
  ociVersion: "text",
  process: processShape,
  root: { path: "text", readonly: "flag" },
  hostname: "text",
  domainname: "text",
  mounts: { list: { destination: "text", type: "text", source: "text", options: texts, uidMappings: ids, gidMappings: ids } },
  hooks: { prestart: hooks, createRuntime: hooks, createContainer: hooks, startContainer: hooks, poststart: hooks, poststop: hooks },
  annotations: { byName: "text" },
  linux: {
    uidMappings: ids,
    gidMappings: ids,
    sysctl: { byName: "text" },
    resources,
    cgroupsPath: "text",
    namespaces: { list: { type: "text", path: "text" } },
    devices: {
      list: { path: "text", type: "text", major: "integer", minor: "integer", fileMode: "integer", uid: "integer", gid: "integer" },
    },
    netDevices: { byName: { name: "text" } },
    seccomp: {
      defaultAction: "text",
      defaultErrnoRet: "integer",
      architectures: texts,
      flags: texts,
      listenerPath: "text",
      listenerMetadata: "text",
      syscalls: {
        list: {
          names: texts,
          action: "text",
          errnoRet: "integer",
          args: { list: { index: "integer", value: "integer", valueTwo: "integer", op: "text" } },
        },
      },
    },
    rootfsPropagation: "text",
    maskedPaths: texts,
    readonlyPaths: texts,
    mountLabel: "text",
    intelRdt: { closID: "text", schemata: texts, l3CacheSchema: "text", memBwSchema: "text", enableMonitoring: "flag" },
    memoryPolicy: { mode: "text", nodes: "text", flags: texts },
    personality: { domain: "text", flags: texts },
    timeOffsets: { boottime: offset, monotonic: offset },
  },
};

/** Without these nothing could be said of what they belong to. */
const needed = new Map<Shape, string[]>();
const need = (shape: Shape | undefined, ...members: string[]) => void (shape && needed.set(shape, members));
const inList = (shape: Shape | undefined) => (typeof shape === "object" && "list" in shape ? (shape.list as Shape) : undefined);
need(inList(hooks), "path");
need(inList(processShape.rlimits), "type", "soft", "hard");
need(inList(specShape.mounts), "destination");

const NAMES = { text: "a string", integer: "an integer", flag: "true or false" };

/** What is wrong, beginning with where; undefined where all is well. null is as good as absent, as Go's encoders write it. */
function fault(value: unknown, shape: Shape): string | undefined {
  if (value === undefined || value === null) return undefined;
  if (typeof shape === "string") {
    const right = shape === "integer" ? Number.isInteger(value) : typeof value === (shape === "text" ? "string" : "boolean");
    return right ? undefined : ` must be ${NAMES[shape]}`;
  }
  if ("list" in shape) {
    if (!Array.isArray(value)) return " must be a list";
    for (let i = 0; i < value.length; i++) {
      const wrong = value[i] === undefined || value[i] === null ? " is null" : fault(value[i], shape.list as Shape);
      if (wrong !== undefined) return `[${i}]${wrong}`;
    }
    return undefined;
  }
  if (typeof value !== "object" || Array.isArray(value)) return " must be an object";
  const members = value as Record<string, unknown>;
  const each = "byName" in shape ? (shape.byName as Shape) : undefined;
  for (const name in members) {
    const member = each ?? (Object.hasOwn(shape, name) ? (shape as Record<string, Shape>)[name] : undefined);
    const wrong = member === undefined ? undefined : fault(members[name], member);
    if (wrong !== undefined) return `.${name}${wrong}`;
  }
  const absent = needed.get(shape)?.find((name) => members[name] === undefined || members[name] === null);
  return absent === undefined ? undefined : ` has no ${absent}`;
}

function check(value: unknown, shape: Shape, what: string): void {
  const wrong = fault(value, shape);
  if (wrong === undefined) return;
  throw invalidArgument(wrong.startsWith(".") ? `${what}: ${wrong.slice(1)}` : `${what}${wrong}`);
}

/** Throws InvalidArgument that names the member. */
export const checkSpecShape = (value: unknown) => check(value, specShape, "config.json");
export const checkProcessShape = (value: unknown) => check(value, processShape, "process");
export const checkResourcesShape = (value: unknown) => check(value, resources, "resources");
