import type { RootMount } from "../face.ts";
import type { Entry } from "./copyup.ts";

/** What a plan must know of the machine. */
export interface Facts {
  /** Of the kernel's version: 6.1 is 6.01, 6.18 is 6.18. */
  kernel: number;
  lastCapability: number;
  /** What this process may give: capabilities 0 to 31 and 32 up, as bits. A privileged container asks for all there are. */
  capabilities: [low: number, high: number];
  /** The file system type of the host's path. Throws where it does not exist. */
  kindOf(path: string): "directory" | "file";
  /** Everything at and below `destination` in the root file system, a path of the host or its mounts; empty where it is not there. */
  entriesOf(root: string | readonly RootMount[], destination: string): Entry[];
  /** This process' user is not root: what needs rights is done from inside the container's own user namespace. */
  ordinaryUser: { uid: number; gid: number } | undefined;
  /** This process is in a user namespace that is not the machine's: no device nodes can be made. */
  inUserNamespace: boolean;
  /** setgroups(2) is refused here (user_namespaces(7)). */
  groupsDenied: boolean;
  apparmor: boolean;
  /** The kernel has a file system for the control of caches. */
  resctrl: boolean;
  selinux: boolean;
}
