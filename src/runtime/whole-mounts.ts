// Mounts that show all of proc or of sysfs. A container that is only chrooted still has the host's in its mount namespace, and as long as one is there
// whole, the kernel lets a user namespace inside mount it anew, without the container's masks (fs/namespace.c, mount_too_revealing).
import { readFileSync } from "../linux/index.ts";

const unescaped = (path: string) => path.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));

/** From /proc/self/mountinfo, those below `rootfs` left out. */
export function wholeMounts(rootfs: string, mountinfo = readFileSync("/proc/self/mountinfo", "utf8")): string[] {
  const places = mountinfo.split("\n").flatMap((line) => {
    const [, , , root, place = ""] = line.split(" ", 5);
    return root === "/" && / - (proc|sysfs) /.test(line) ? [unescaped(place)] : [];
  });
  return places.filter((place) => place !== rootfs && !place.startsWith(`${rootfs}/`));
}
