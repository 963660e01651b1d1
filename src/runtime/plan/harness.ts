// For the tests of plans: a machine that plans can be made for without being on one.
import type { Facts } from "./facts.ts";

export const facts: Facts = {
  entriesOf: () => [],
  kernel: 6.18,
  lastCapability: 40,
  capabilities: [-1, -1],
  apparmor: false,
  resctrl: false,
  selinux: false,
  ordinaryUser: undefined,
  inUserNamespace: false,
  groupsDenied: false,
  kindOf: (path) => (path.endsWith("/") || path.endsWith("dir") ? "directory" : "file"),
};
