// Device rules: what the spec says, and after it what every container may do, as runc has it.
import type { DeviceRule } from "../../oci/runtime-spec.ts";

/** Making any node (which opens nothing), and the harmless ones: null, zero, full, random, urandom, tty, console, ptmx, pts/*. */
export const alwaysAllowed: DeviceRule[] = [
  { allow: true, type: "c", access: "m" },
  { allow: true, type: "b", access: "m" },
  { allow: true, type: "c", major: 1, minor: 3, access: "rwm" },
  { allow: true, type: "c", major: 1, minor: 8, access: "rwm" },
  { allow: true, type: "c", major: 1, minor: 7, access: "rwm" },
  { allow: true, type: "c", major: 5, minor: 0, access: "rwm" },
  { allow: true, type: "c", major: 1, minor: 5, access: "rwm" },
  { allow: true, type: "c", major: 1, minor: 9, access: "rwm" },
  { allow: true, type: "c", major: 136, access: "rwm" },
  { allow: true, type: "c", major: 5, minor: 2, access: "rwm" },
];

function isAll(rule: DeviceRule): boolean {
  return (rule.type ?? "a") === "a";
}

/** The rules that count: everything before the last rule for all devices is void; a container starts with nothing allowed. */
export function effectiveRules(rules: readonly DeviceRule[]): { allowAll: boolean; rules: DeviceRule[] } {
  let last = rules.length - 1;
  while (last >= 0 && !isAll(rules[last]!)) last--;
  const allowAll = last >= 0 && rules[last]!.allow;
  const rest = rules.slice(last + 1);
  if (allowAll) return { allowAll, rules: rest.filter((rule) => !rule.allow) };
  // What is denied before anything was allowed is denied anyway.
  let first = 0;
  while (first < rest.length && !rest[first]!.allow) first++;
  return { allowAll, rules: rest.slice(first).concat(alwaysAllowed) };
}

/** "c 1:3 rwm", as v1's devices.allow takes it. */
export function ruleText(rule: DeviceRule): string {
  const number = (n: number | undefined) => (n === undefined || n < 0 ? "*" : String(n));
  return `${rule.type ?? "a"} ${number(rule.major)}:${number(rule.minor)} ${rule.access || "rwm"}`;
}

const BPF_DEVCG_DEV = { b: 1, c: 2 } as const;
const BPF_DEVCG_ACC = { m: 1, r: 2, w: 4 } as const;

/**
 * The rules as a program for cgroup v2 (linux/bpf.h, struct bpf_cgroup_dev_ctx: u32 access_type (access above type), u32 major, u32 minor); it
 * returns 1 to allow. The last rule that matches decides, so they are tested from the last to the first. undefined: everything is allowed.
 */
export function deviceProgram(asked: readonly DeviceRule[]): Uint8Array | undefined {
  const { allowAll, rules } = effectiveRules(asked);
  if (allowAll && rules.length === 0) return undefined;
  const code: [opcode: number, registers: number, offset: number, immediate: number][] = [];
  const LDX = 0x61; // dst = *(u32 *)(src + offset)
  const MOV = 0xb7;
  const COPY = 0xbf;
  const AND = 0x57;
  const SHIFT_RIGHT = 0x77;
  const JNE = 0x55;
  const JNE_REGISTER = 0x5d;
  const JEQ = 0x15;
  const EXIT = 0x95;
  const registers = (dst: number, src = 0) => dst | (src << 4);
  // r2 type, r3 access, r4 major, r5 minor
  code.push(
    [LDX, registers(2, 1), 0, 0],
    [COPY, registers(3, 2), 0, 0],
    [AND, registers(2), 0, 0xffff],
    [SHIFT_RIGHT, registers(3), 0, 16],
  );
  code.push([LDX, registers(4, 1), 4, 0], [LDX, registers(5, 1), 8, 0]);
  for (const rule of [...rules].reverse()) {
    const block: typeof code = [];
    const type = rule.type ?? "a";
    if (type === "b" || type === "c") block.push([JNE, registers(2), -1, BPF_DEVCG_DEV[type]]);
    const access = [...(rule.access || "rwm")].reduce(
      (bits, letter) => bits | (BPF_DEVCG_ACC[letter as keyof typeof BPF_DEVCG_ACC] ?? 0),
      0,
    );
    if (access !== 7) {
      // To allow, all that is asked for must be in the rule; to deny, any of it.
      block.push([COPY, registers(6, 3), 0, 0], [AND, registers(6), 0, access]);
      block.push(rule.allow ? [JNE_REGISTER, registers(6, 3), -1, 0] : [JEQ, registers(6), -1, 0]);
    }
    if (rule.major !== undefined && rule.major >= 0) block.push([JNE, registers(4), -1, rule.major]);
    if (rule.minor !== undefined && rule.minor >= 0) block.push([JNE, registers(5), -1, rule.minor]);
    block.push([MOV, registers(0), 0, rule.allow ? 1 : 0], [EXIT, 0, 0, 0]);
    // -1 stands for: to the next rule.
    block.forEach((instruction, i) => {
      if (instruction[2] === -1) instruction[2] = block.length - i - 1;
    });
    code.push(...block);
  }
  code.push([MOV, registers(0), 0, allowAll ? 1 : 0], [EXIT, 0, 0, 0]);
  const program = new DataView(new ArrayBuffer(code.length * 8));
  code.forEach(([opcode, regs, offset, immediate], i) => {
    program.setUint8(8 * i, opcode);
    program.setUint8(8 * i + 1, regs);
    program.setInt16(8 * i + 2, offset, true);
    program.setInt32(8 * i + 4, immediate, true);
  });
  return new Uint8Array(program.buffer);
}
