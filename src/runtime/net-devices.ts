// linux.netDevices: devices of the host's network that become the container's, with their addresses, up (runtime-spec config-linux.md, "Network
// Devices"). When the container's namespace ends the kernel gives back what has hardware behind it and deletes the rest.
import { alreadyExists, messageOf, unknown } from "../lib/errors.ts";
import {
  addAddress,
  close,
  getLink,
  inNetns,
  listAddresses,
  listLinks,
  moveLink,
  NETLINK_ROUTE,
  netlinkMessages,
  netnsOf,
  openNetlink,
  setLinkUp,
} from "../linux/index.ts";
import type { Spec } from "../oci/runtime-spec.ts";

const IFA_F_PERMANENT = 0x80;

/** Moves them into the network of the process `pid`. */
export function moveNetDevices(spec: Spec, pid: number): void {
  for (const [device, { name = device }] of Object.entries(spec.linux?.netDevices ?? {})) {
    const netns = netnsOf(pid);
    try {
      moveOne(device, name, netns);
    } catch (error) {
      throw unknown(`move network device ${device} into the container as ${name}: ${messageOf(error)}`, error);
    } finally {
      close(netns);
    }
  }
}

function moveOne(device: string, name: string, netns: number): void {
  const here = openNetlink(NETLINK_ROUTE);
  const there = inNetns(netns, () => openNetlink(NETLINK_ROUTE));
  try {
    const { index } = getLink(here, { name: device });
    // The kernel would move it first and rename it then, and what is virtual ends with a namespace that was made in vain.
    if (listLinks(there).some((link) => link.name === name)) throw alreadyExists("the container's network has a device of that name");
    const addresses = listAddresses(here).filter((a) => a.index === index && a.scope === 0 && a.flags & IFA_F_PERMANENT);
    const away = netlinkMessages();
    moveLink(away, { index, netns, name });
    here.request(away);
    const moved = getLink(there, { name });
    const up = netlinkMessages();
    for (const { local, prefix } of addresses) addAddress(up, { index: moved.index, local, prefix });
    setLinkUp(up, { index: moved.index });
    there.request(up);
  } finally {
    here.close();
    there.close();
  }
}
