// AppArmor, as the kernel tells of it (Documentation/admin-guide/LSM/apparmor.rst).
import { readFileSync } from "./files.ts";

/** Whether it is switched on. */
export function hasApparmor(): boolean {
  try {
    return readFileSync("/sys/module/apparmor/parameters/enabled", "utf8").startsWith("Y");
  } catch {
    return false;
  }
}
