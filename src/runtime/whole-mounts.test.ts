import { expect, test } from "bun:test";
import { wholeMounts } from "./whole-mounts.ts";

test("whole are those whose root is mounted, outside of the container's root", () => {
  const lines = [
    "22 27 0:21 / /proc rw,relatime - proc proc rw",
    "23 27 0:22 / /sys rw,relatime shared:7 - sysfs sysfs rw",
    "24 27 0:22 /fs/cgroup /part rw,relatime - sysfs sysfs rw",
    "25 27 0:30 / /a\\040place rw,relatime - proc proc rw",
    "26 27 0:31 / /bundle/rootfs/proc rw,relatime - proc proc rw",
    "27 27 0:31 / /bundle/rootfs2/proc rw,relatime - proc proc rw",
    "28 27 0:32 / /tmp rw,relatime - tmpfs proc rw",
  ];
  expect(wholeMounts("/bundle/rootfs", `${lines.join("\n")}\n`)).toEqual(["/proc", "/sys", "/a place", "/bundle/rootfs2/proc"]);
});
