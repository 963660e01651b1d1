// Commands that tell: events, features, spec, explain.
import { existsSync, writeFileSync } from "node:fs";
import { Failure } from "../../lib/errors.ts";
import { hasApparmor } from "../../linux/index.ts";
import { CAPABILITIES } from "../plan/constants.ts";
import { knownOptions } from "../plan/mount-options.ts";
import { memoryPolicyFlags, memoryPolicyModes } from "../plan/settings.ts";
import { seccompFlags } from "../seccomp.ts";
import { seccompActions, seccompArchitectures, seccompOperators } from "../seccomp-compile.ts";
import { checkSpecShape } from "../shape.ts";
import { exampleSpec, rootlessSpec } from "../spec.ts";
import { stepText } from "../tape.ts";
import { bundleOf, readBundle } from "./bundle.ts";
import type { Context } from "./context.ts";
import { inputOf } from "./create.ts";
import { type Flags, idOf, parseFlags } from "./flags.ts";
import { locate } from "./life.ts";
import { print } from "./output.ts";
import { planWhole } from "./planner.ts";
import { statsLine } from "./stats.ts";
import { cgroupOf, checkId, statusOf } from "./store.ts";

const out = (text: string) => print(1, text);

export async function events(context: Context, argv: string[]): Promise<number> {
  const flags = parseFlags(argv, { stats: "boolean", interval: "value" });
  const id = idOf("events", flags);
  const stored = context.store.load(id);
  if (statusOf(stored) === "stopped") throw new Failure("FailedPrecondition", `container with id ${id} is not running`);
  const print = () => out(`${statsLine(id, cgroupOf(stored).stats(), stored.cgroup)}\n`);
  if (flags.on("stats")) {
    print();
    return 0;
  }
  const match = /^(\d+(?:\.\d+)?)(ms|s|m)?$/.exec(flags.value("interval") ?? "5s");
  if (!match) throw new Failure("InvalidArgument", "duration interval must be greater than 0");
  const interval = Number(match[1]) * { ms: 1, s: 1000, m: 60000 }[(match[2] ?? "s") as "ms" | "s" | "m"];
  const stop = cgroupOf(stored).onOom(() => out(`${JSON.stringify({ type: "oom", id })}\n`));
  try {
    while (statusOf(stored) !== "stopped") {
      print();
      await new Promise((resolve) => setTimeout(resolve, interval));
    }
  } finally {
    stop();
  }
  return 0;
}

export async function features(): Promise<number> {
  const described = {
    ociVersionMin: "1.0.0",
    ociVersionMax: "1.3.0",
    hooks: ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
    mountOptions: knownOptions,
    linux: {
      namespaces: ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"],
      capabilities: CAPABILITIES,
      cgroup: { v1: true, v2: true, systemd: true, systemdUser: true, rdma: true },
      seccomp: {
        enabled: true,
        actions: seccompActions.sort(),
        operators: seccompOperators.sort(),
        archs: seccompArchitectures.sort(),
        knownFlags: seccompFlags.sort(),
        supportedFlags: seccompFlags.sort(),
      },
      apparmor: { enabled: hasApparmor() },
      selinux: { enabled: existsSync("/sys/fs/selinux/enforce") },
      intelRdt: { enabled: false },
      memoryPolicy: { modes: memoryPolicyModes, flags: memoryPolicyFlags },
      mountExtensions: { idmap: { enabled: true } },
      netDevices: { enabled: true },
    },
    potentiallyUnsafeConfigAnnotations: ["org.criu.config", "org.systemd.property."],
    annotations: { "org.jubako.runtime": "tape" },
  };
  out(`${JSON.stringify(described, null, 4)}\n`);
  return 0;
}

export async function spec(_context: Context, argv: string[]): Promise<number> {
  const flags = parseFlags(argv, { bundle: "value", b: { short: "bundle" }, rootless: "boolean" });
  const file = `${bundleOf(flags.value("bundle"))}/config.json`;
  if (existsSync(file)) throw new Failure("AlreadyExists", "File config.json exists. Remove it first");
  writeFileSync(file, `${JSON.stringify(flags.on("rootless") ? rootlessSpec() : exampleSpec(), null, 4)}\n`);
  return 0;
}

/** Prints what `create` would do, step by step, and does nothing. */
export async function explain(context: Context, argv: string[]): Promise<number> {
  const flags = parseFlags(argv, { json: "boolean", "no-pivot": "boolean", "no-new-keyring": "boolean", id: "value" });
  const words = flags.rest.filter((word) => word !== "--json");
  const json = flags.on("json") || words.length !== flags.rest.length;
  return explainPlan(context, flags.value("id") ?? "ID", bundleOf(words[0]), flags, json);
}

/** create --dry-run. */
export async function explainBundle(context: Context, id: string, flags: Flags): Promise<number> {
  checkId(id);
  return explainPlan(context, id, bundleOf(flags.value("bundle")), flags, flags.on("json"));
}

async function explainPlan(context: Context, id: string, bundle: string, flags: Flags, json: boolean): Promise<number> {
  const spec = readBundle(bundle);
  checkSpecShape(spec);
  const plan = planWhole(inputOf(id, bundle, spec, flags, 0, await locate(context, spec, id), true));
  const { steps } = plan.tape;
  if (json) {
    out(
      `${JSON.stringify(
        steps.map((step, index) => ({ index, op: step.op, text: stepText(step), why: step.why })),
        null,
        2,
      )}\n`,
    );
    return 0;
  }
  const width = String(steps.length - 1).length;
  let why: string | undefined;
  const lines: string[] = [];
  steps.forEach((step, i) => {
    if (step.why !== why) lines.push(`${" ".repeat(width)}  # ${step.why}`);
    why = step.why;
    lines.push(`${String(i).padStart(width)}  ${stepText(step)}`);
  });
  out(`${lines.join("\n")}\n`);
  return 0;
}
