// AppArmor, as the kernel tells of it (Documentation/admin-guide/LSM/apparmor.rst).
import { existsSync, readFileSync } from "./files.ts";

const ENABLED = "/sys/module/apparmor/parameters/enabled";

/** Whether it is switched on. */
export function hasApparmor(): boolean {
  // Most machines without it have no such file, and an exception costs a command more than the question.
  if (!existsSync(ENABLED)) return false;
  try {
    return readFileSync(ENABLED, "utf8").startsWith("Y");
  } catch {
    return false;
  }
}
