// Platforms: "linux/amd64", "linux/arm64/v8", as descriptors and `--platform` say them, and which manifest of an index fits.
import { invalidArgument } from "../lib/errors.ts";

export interface Platform {
  os: string;
  architecture: string;
  variant?: string;
  "os.version"?: string;
  "os.features"?: string[];
}

const ARCHITECTURES: Record<string, string> = {
  x64: "amd64",
  x86_64: "amd64",
  "x86-64": "amd64",
  aarch64: "arm64",
  i386: "386",
  ia32: "386",
  armhf: "arm",
};

/** The platform of this machine. */
export function hostPlatform(): Platform {
  const architecture = ARCHITECTURES[process.arch] ?? process.arch;
  return normalise({ os: process.platform, architecture });
}

/** Aliases gone and default variants left out, so that equal platforms compare equal. */
export function normalise(platform: Platform): Platform {
  const lower = platform.architecture.toLowerCase();
  let architecture = ARCHITECTURES[lower] ?? lower;
  let variant = platform.variant?.toLowerCase() ?? "";
  if (lower === "armel") [architecture, variant] = ["arm", "v6"];
  if (architecture === "arm64" && (variant === "8" || variant === "v8")) variant = "";
  if (architecture === "amd64" && variant === "v1") variant = "";
  if (architecture === "arm" && variant === "") variant = "v7";
  if (/^\d$/.test(variant)) variant = `v${variant}`;
  const out: Platform = { os: platform.os.toLowerCase() === "macos" ? "darwin" : platform.os.toLowerCase(), architecture };
  if (variant) out.variant = variant;
  return out;
}

/** "os[/arch[/variant]]", or an architecture alone; InvalidArgument else. */
export function parsePlatform(text: string): Platform {
  const parts = text.split("/");
  if (parts.length > 3 || parts.some((part) => !/^[A-Za-z0-9_.-]+$/.test(part)))
    throw invalidArgument(`"${text}": unknown operating system or architecture: invalid argument`);
  const host = hostPlatform();
  if (parts.length === 1) {
    const one = parts[0]!.toLowerCase();
    if (["linux", "windows", "darwin", "freebsd"].includes(one)) return normalise({ ...host, os: one });
    return normalise({ os: host.os, architecture: one });
  }
  return normalise({ os: parts[0]!, architecture: parts[1]!, ...(parts[2] ? { variant: parts[2] } : {}) });
}

export function formatPlatform(platform: Platform): string {
  return [platform.os, platform.architecture, platform.variant].filter(Boolean).join("/");
}

/** How well `have` serves `want`: 0 not at all, else the higher the better. Older variants of the same family run on newer machines. */
export function fitness(want: Platform, have: Platform): number {
  const w = normalise(want);
  const h = normalise(have);
  if (w.os !== h.os) return 0;
  const level = (p: Platform) => Number(/^v(\d)$/.exec(p.variant ?? "v1")?.[1] ?? 1);
  if (w.architecture === h.architecture) {
    if ((w.variant ?? "") === (h.variant ?? "")) return 100;
    if (w.architecture === "amd64" || w.architecture === "arm") return level(h) <= level(w) ? 50 + level(h) : 0;
    return 0;
  }
  if (w.architecture === "arm64" && h.architecture === "arm") return 10 + level(h);
  if (w.architecture === "amd64" && h.architecture === "386") return 5;
  return 0;
}

/** The entry that fits best; the first one among equals. Entries without a platform are considered last. */
export function choosePlatform<T extends { platform?: Platform }>(entries: readonly T[], want: Platform): T | undefined {
  let best: T | undefined;
  let score = 0;
  for (const entry of entries) {
    const fits = entry.platform ? fitness(want, entry.platform) : 1;
    if (fits > score) [best, score] = [entry, fits];
  }
  return best;
}
