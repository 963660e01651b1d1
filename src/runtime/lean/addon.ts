// The binding, in the place of the Node-API addon (src/linux/addon.ts).
import type { Binding } from "../../linux/index.ts";
import { host } from "./host.ts";
import { poller, pollerRef } from "./loop.ts";
import { syscall } from "./syscall.ts";

export const addon: Binding = {
  syscall,
  address: host.address,
  spawn: host.spawn,
  poller,
  pollerRef,
};
