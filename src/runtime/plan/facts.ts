/** What a plan must know of the machine. */
export interface Facts {
  /** Of the kernel's version: 6.1 is 6.01, 6.18 is 6.18. */
  kernel: number;
  lastCapability: number;
  /** The file system type of the host's path. Throws where it does not exist. */
  kindOf(path: string): "directory" | "file";
  apparmor: boolean;
  selinux: boolean;
}
