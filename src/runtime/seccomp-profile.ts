// Seccomp profiles in Docker's format, of which the default one is data beside this file: conditions on capabilities, architecture and kernel,
// resolved to the seccomp section of config.json.
import { arch, release } from "node:os";
import { invalidArgument } from "../lib/errors.ts";
import type { Seccomp, SeccompArgument, SeccompSyscall } from "../oci/runtime-spec.ts";
import defaultProfile from "./seccomp-default.json";

interface Conditions {
  caps?: string[];
  arches?: string[];
  /** "4.8" */
  minKernel?: string;
}

interface ProfileSyscall {
  name?: string;
  names?: string[];
  action: string;
  errnoRet?: number;
  args?: SeccompArgument[] | null;
  includes?: Conditions;
  excludes?: Conditions;
}

interface Profile {
  defaultAction: string;
  defaultErrnoRet?: number;
  architectures?: string[];
  archMap?: { architecture: string; subArchitectures?: string[] | null }[];
  flags?: string[];
  listenerPath?: string;
  listenerMetadata?: string;
  syscalls?: ProfileSyscall[];
}

/** Go's names, which profiles use, and libseccomp's. */
const architectures: Record<string, { go: string; seccomp: string }> = {
  x64: { go: "amd64", seccomp: "SCMP_ARCH_X86_64" },
  arm64: { go: "arm64", seccomp: "SCMP_ARCH_AARCH64" },
  riscv64: { go: "riscv64", seccomp: "SCMP_ARCH_RISCV64" },
  s390x: { go: "s390x", seccomp: "SCMP_ARCH_S390X" },
};

function atLeast(kernel: string, wanted: string): boolean {
  const [major = 0, minor = 0] = kernel.split(/[.-]/).map(Number);
  const [wantedMajor = 0, wantedMinor = 0] = wanted.split(".").map(Number);
  return major > wantedMajor || (major === wantedMajor && minor >= wantedMinor);
}

export interface Circumstances {
  /** Names such as CAP_SYS_ADMIN that the container has. */
  capabilities: string[];
  /** Go's name of the architecture; this machine's by default. */
  arch?: string;
  /** uname's release; this machine's by default. */
  kernel?: string;
}

function parse(profile: unknown): Profile {
  if (typeof profile !== "object" || profile === null) throw invalidArgument("the seccomp profile is not an object");
  const candidate = profile as Profile;
  if (typeof candidate.defaultAction !== "string") throw invalidArgument("the seccomp profile has no defaultAction");
  if (candidate.architectures?.length && candidate.archMap?.length) {
    throw invalidArgument(
      "both 'architectures' and 'archMap' are specified in the seccomp profile, use either 'architectures' or 'archMap'",
    );
  }
  for (const rule of candidate.syscalls ?? []) {
    if (rule.name && rule.names?.length)
      throw invalidArgument("both 'name' and 'names' are specified in the seccomp profile, use either 'name' or 'names'");
    if (typeof rule.action !== "string") throw invalidArgument("a rule of the seccomp profile has no action");
  }
  return candidate;
}

/** The seccomp section for a container with these capabilities; `profile` undefined: Docker's default profile. */
export function resolveDockerSeccomp(profile: unknown, circumstances: Circumstances): Seccomp {
  const parsed = parse(profile ?? defaultProfile);
  const machine = architectures[arch()];
  const go = circumstances.arch ?? machine?.go ?? arch();
  const kernel = circumstances.kernel ?? release();
  const capabilities = new Set(circumstances.capabilities);
  const native = Object.values(architectures).find((a) => a.go === go)?.seccomp;

  const resolved: Seccomp = { defaultAction: parsed.defaultAction };
  if (parsed.defaultErrnoRet !== undefined) resolved.defaultErrnoRet = parsed.defaultErrnoRet;
  if (parsed.flags) resolved.flags = parsed.flags;
  if (parsed.listenerPath) resolved.listenerPath = parsed.listenerPath;
  if (parsed.listenerMetadata) resolved.listenerMetadata = parsed.listenerMetadata;
  if (parsed.architectures?.length) resolved.architectures = parsed.architectures;
  const mapped = parsed.archMap?.find((a) => a.architecture === native);
  if (mapped) resolved.architectures = [mapped.architecture, ...(mapped.subArchitectures ?? [])];

  const applies = (rule: ProfileSyscall): boolean => {
    const { includes = {}, excludes = {} } = rule;
    if (excludes.arches?.includes(go)) return false;
    if (excludes.caps?.some((cap) => capabilities.has(cap))) return false;
    if (excludes.minKernel && atLeast(kernel, excludes.minKernel)) return false;
    if (includes.arches?.length && !includes.arches.includes(go)) return false;
    if (includes.caps?.some((cap) => !capabilities.has(cap))) return false;
    return !includes.minKernel || atLeast(kernel, includes.minKernel);
  };
  resolved.syscalls = (parsed.syscalls ?? []).filter(applies).map((rule) => {
    const syscall: SeccompSyscall = { names: rule.names?.length ? rule.names : rule.name ? [rule.name] : [], action: rule.action };
    if (rule.errnoRet !== undefined) syscall.errnoRet = rule.errnoRet;
    if (rule.args?.length) syscall.args = rule.args;
    return syscall;
  });
  return resolved;
}
