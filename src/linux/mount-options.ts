// Options of mount(8) as flags of mount(2) (linux/mount.h).

export const MS_REMOUNT = 32;
export const MS_BIND = 4096;
export const MS_REC = 16384;
const MS_PRIVATE = 1 << 18;

const FLAGS: Record<string, [set: number, clear: number]> = {
  defaults: [0, 0],
  ro: [1, 0],
  rw: [0, 1],
  nosuid: [2, 0],
  suid: [0, 2],
  nodev: [4, 0],
  dev: [0, 4],
  noexec: [8, 0],
  exec: [0, 8],
  sync: [16, 0],
  async: [0, 16],
  noatime: [1024, 0],
  atime: [0, 1024],
  nodiratime: [2048, 0],
  bind: [MS_BIND, 0],
  rbind: [MS_BIND | MS_REC, 0],
  relatime: [1 << 21, 0],
  strictatime: [1 << 24, 0],
  private: [MS_PRIVATE, 0],
  rprivate: [MS_PRIVATE | MS_REC, 0],
};

/** `data`: what is none of these and goes to the file system, joined with commas. */
export function parseMountOptions(options: readonly string[]): { flags: number; data: string } {
  let flags = 0;
  const data: string[] = [];
  for (const option of options) {
    const known = FLAGS[option];
    if (known) flags = (flags | known[0]) & ~known[1];
    else data.push(option);
  }
  return { flags, data: data.join(",") };
}
