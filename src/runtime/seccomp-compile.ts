// Compiles the seccomp section of config.json to BPF, by libseccomp: in this process where bun:ffi works, otherwise by one of its own.
import { Failure, invalidArgument } from "../lib/errors.ts";
import { programCommand } from "../lib/program.ts";
import { binding, check, close, errno, SYS } from "../linux/index.ts";
import type { Seccomp, SeccompSyscall } from "../oci/runtime-spec.ts";

const actions: Record<string, number> = {
  SCMP_ACT_KILL: 0,
  SCMP_ACT_KILL_THREAD: 0,
  SCMP_ACT_KILL_PROCESS: 0x80000000,
  SCMP_ACT_TRAP: 0x00030000,
  SCMP_ACT_ERRNO: 0x00050000,
  SCMP_ACT_TRACE: 0x7ff00000,
  SCMP_ACT_LOG: 0x7ffc0000,
  SCMP_ACT_ALLOW: 0x7fff0000,
  SCMP_ACT_NOTIFY: 0x7fc00000,
};
const operators: Record<string, number> = {
  SCMP_CMP_NE: 1,
  SCMP_CMP_LT: 2,
  SCMP_CMP_LE: 3,
  SCMP_CMP_EQ: 4,
  SCMP_CMP_GE: 5,
  SCMP_CMP_GT: 6,
  SCMP_CMP_MASKED_EQ: 7,
};
/** Tokens of libseccomp, which are those of linux/audit.h, except x32's. */
const architectures: Record<string, number> = {
  SCMP_ARCH_X86: 0x40000003,
  SCMP_ARCH_X86_64: 0xc000003e,
  SCMP_ARCH_X32: 0x4000003e,
  SCMP_ARCH_ARM: 0x40000028,
  SCMP_ARCH_AARCH64: 0xc00000b7,
  SCMP_ARCH_RISCV64: 0xc00000f3,
  SCMP_ARCH_LOONGARCH64: 0xc0000102,
  SCMP_ARCH_M68K: 4,
  SCMP_ARCH_MIPS: 8,
  SCMP_ARCH_MIPS64: 0x80000008,
  SCMP_ARCH_MIPS64N32: 0xa0000008,
  SCMP_ARCH_MIPSEL: 0x40000008,
  SCMP_ARCH_MIPSEL64: 0xc0000008,
  SCMP_ARCH_MIPSEL64N32: 0xe0000008,
  SCMP_ARCH_PARISC: 15,
  SCMP_ARCH_PARISC64: 0x8000000f,
  SCMP_ARCH_PPC: 20,
  SCMP_ARCH_PPC64: 0x80000015,
  SCMP_ARCH_PPC64LE: 0xc0000015,
  SCMP_ARCH_SH: 0x4000002a,
  SCMP_ARCH_SHEB: 0x2a,
  SCMP_ARCH_S390: 22,
  SCMP_ARCH_S390X: 0x80000016,
};
export const seccompActions = [...Object.keys(actions)];
export const seccompOperators = Object.keys(operators);
export const seccompArchitectures = Object.keys(architectures);
function actionValue(name: string, errnoRet: number | undefined): number {
  const action = actions[name];
  if (action === undefined) throw invalidArgument(`unknown seccomp action ${JSON.stringify(name)}`);
  return name === "SCMP_ACT_ERRNO" || name === "SCMP_ACT_TRACE" ? action + ((errnoRet ?? 1) & 0xffff) : action;
}

/** struct sock_filter[]; takes milliseconds. */
export function compileProgram(seccomp: Seccomp): Uint8Array {
  return hasForeignCalls() ? compile(seccomp) : compileElsewhere(seccomp);
}

type Library = ReturnType<typeof load>;

function load() {
  const { dlopen, FFIType } = require("bun:ffi") as typeof import("bun:ffi");
  const { ptr, i32, u32, cstring } = FFIType;
  try {
    return dlopen("libseccomp.so.2", {
      seccomp_init: { args: [u32], returns: ptr },
      seccomp_release: { args: [ptr], returns: FFIType.void },
      seccomp_arch_add: { args: [ptr, u32], returns: i32 },
      seccomp_arch_native: { args: [], returns: u32 },
      seccomp_attr_set: { args: [ptr, i32, u32], returns: i32 },
      seccomp_syscall_resolve_name_arch: { args: [u32, ptr], returns: i32 },
      seccomp_rule_add_array: { args: [ptr, u32, i32, u32, ptr], returns: i32 },
      seccomp_export_bpf: { args: [ptr, i32], returns: i32 },
    }).symbols;
  } catch (error) {
    throw new Failure(
      "FailedPrecondition",
      "seccomp needs libseccomp.so.2 (Debian: apt-get install libseccomp2), which could not be loaded",
      { cause: error },
    );
  } finally {
    void cstring;
  }
}

let library: Library | undefined;

/** bun:ffi makes machine code: a process that runs without Bun's compilers (the shim, to be small) has none. */
function hasForeignCalls(): boolean {
  return process.env.BUN_JSC_useJIT !== "0";
}

/** By a process of its own: once for each profile, as its result is kept. */
function compileElsewhere(seccomp: Seccomp): Uint8Array {
  const [program, ...args] = programCommand("jubako-runtime");
  const { BUN_JSC_useJIT: _, ...env } = process.env;
  const child = process
    .getBuiltinModule("node:child_process")
    .spawnSync(program!, [...args, "seccomp"], { input: JSON.stringify(seccomp), env, timeout: 30_000, maxBuffer: 8 << 20 });
  if (child.status !== 0 || child.error)
    throw new Failure("Unknown", logged(child.stderr?.toString()) ?? `seccomp: ${child.error?.message ?? "not compiled"}`);
  return new Uint8Array(child.stdout);
}

/** The message in a line of the runtime's log. */
function logged(text: string | undefined): string | undefined {
  const quoted = /msg=("(?:[^"\\]|\\.)*")/.exec(text ?? "")?.[1];
  return quoted === undefined ? text?.trim() || undefined : (JSON.parse(quoted) as string);
}

export function compile(seccomp: Seccomp): Uint8Array {
  library ??= load();
  const lib = library;
  const defaultAction = actionValue(seccomp.defaultAction, seccomp.defaultErrnoRet);
  const context = lib.seccomp_init(defaultAction);
  if (!context) throw new Failure("Unknown", "libseccomp: no context");
  try {
    const native = lib.seccomp_arch_native();
    for (const name of seccomp.architectures ?? []) {
      const arch = architectures[name];
      if (arch === undefined) throw invalidArgument(`unknown seccomp architecture ${JSON.stringify(name)}`);
      if (arch === native) continue;
      const result = lib.seccomp_arch_add(context, arch);
      // Architectures of other machines are in many profiles. Of no use here, they may be too new for the library, or of another byte order.
      if (![0, -errno.EEXIST, -errno.EINVAL, -errno.EDOM].includes(result))
        throw new Failure("Unknown", `libseccomp: cannot add architecture ${name} (${result})`);
    }
    const OPTIMIZE = 8;
    lib.seccomp_attr_set(context, OPTIMIZE, 2);
    let highest = -1;
    let highest32 = -1;
    for (const rule of seccomp.syscalls ?? []) {
      const action = actionValue(rule.action, rule.errnoRet);
      for (const name of rule.names) {
        const text = Buffer.from(`${name}\0`);
        const number = lib.seccomp_syscall_resolve_name_arch(native, text);
        // -1: a call that this libseccomp does not know (as runc: passed over).
        if (number === -1) continue;
        highest = Math.max(highest, number);
        highest32 = Math.max(highest32, lib.seccomp_syscall_resolve_name_arch(architectures.SCMP_ARCH_X86!, text));
        if (action === defaultAction) continue;
        for (const conditions of conditionsOf(rule)) {
          const result = lib.seccomp_rule_add_array(context, action, number, conditions.length / 24, conditions.length ? conditions : null);
          if (result !== 0) throw new Failure("Unknown", `libseccomp: cannot add the rule for ${name} (${result})`);
        }
      }
    }
    const program = exported(lib, context);
    const permissive = [0x7fff0000, 0x7ffc0000].includes(defaultAction) || (defaultAction & 0xffff0000) === 0x7ff00000;
    return permissive || defaultAction === 0x00050000 + 38 ? program : withUnknownCalls(program, native, highest, highest32);
  } finally {
    lib.seccomp_release(context);
  }
}

/** JSON's 18446744073709551615 became 2^64 as a double. */
const bits64 = (value: number) => (value >= 2 ** 64 ? 2n ** 64n - 1n : BigInt.asUintN(64, BigInt(value)));

/** struct scmp_arg_cmp[] of each rule to add: conditions on one argument twice are alternatives, as libseccomp takes an argument once. */
function conditionsOf(rule: SeccompSyscall): Uint8Array[] {
  const args = rule.args ?? [];
  const encode = (list: typeof args): Uint8Array => {
    const view = new DataView(new ArrayBuffer(24 * list.length));
    list.forEach((arg, i) => {
      const op = operators[arg.op];
      if (op === undefined) throw invalidArgument(`unknown seccomp operator ${JSON.stringify(arg.op)}`);
      if (arg.index > 5) throw invalidArgument(`seccomp: there is no argument ${arg.index}`);
      view.setUint32(24 * i, arg.index, true);
      view.setUint32(24 * i + 4, op, true);
      view.setBigUint64(24 * i + 8, bits64(arg.value), true);
      view.setBigUint64(24 * i + 16, bits64(arg.valueTwo ?? 0), true);
    });
    return new Uint8Array(view.buffer);
  };
  const twice = new Set(args.map((a) => a.index)).size !== args.length;
  return twice ? args.map((arg) => encode([arg])) : [encode(args)];
}

function exported(lib: Library, context: NonNullable<ReturnType<Library["seccomp_init"]>>): Uint8Array {
  const fd = check(binding.syscall(SYS.memfd_create, "filter", 1), "memfd_create");
  try {
    const result = lib.seccomp_export_bpf(context, fd);
    if (result !== 0) throw new Failure("Unknown", `libseccomp: cannot export the filter (${result})`);
    const size = check(binding.syscall(SYS.lseek, fd, 0, 2), "lseek");
    const program = new Uint8Array(size);
    check(binding.syscall(SYS.pread64, fd, program, size, 0), "read filter");
    return program;
  } finally {
    close(fd);
  }
}

/**
 * Calls newer than any that the profile names get ENOSYS, not the default's EPERM: C libraries try the new call first and fall back
 * only where it does not exist (runc does the same since 1.0).
 */
function withUnknownCalls(program: Uint8Array, native: number, highest: number, highest32: number): Uint8Array {
  if (native !== architectures.SCMP_ARCH_X86_64 || highest < 0) return program;
  const LD = 0x20;
  const JEQ = 0x15;
  const JGT = 0x25;
  const JGE = 0x35;
  const RET = 0x06;
  const ENOSYS = 0x00050000 + 38;
  // code, jump if true, jump if false, k
  const prelude: [number, number, number, number][] = [
    [LD, 0, 0, 4],
    [JEQ, 0, 4, 0xc000003e],
    [LD, 0, 0, 0],
    [JGE, 6, 0, 0x40000000], // x32: to the filter
    [JGT, 0, 5, highest],
    [RET, 0, 0, ENOSYS],
    [JEQ, 0, 3, 0x40000003],
    [LD, 0, 0, 0],
    [JGT, 0, 1, Math.max(highest32, 0) || 0xffffffff],
    [RET, 0, 0, ENOSYS],
  ];
  const patched = new Uint8Array(prelude.length * 8 + program.length);
  const view = new DataView(patched.buffer);
  prelude.forEach(([code, yes, no, k], i) => {
    view.setUint16(8 * i, code, true);
    view.setUint8(8 * i + 2, yes);
    view.setUint8(8 * i + 3, no);
    view.setUint32(8 * i + 4, k, true);
  });
  patched.set(program, prelude.length * 8);
  return patched;
}
