// Connection tracking entries (ctnetlink, include/uapi/linux/netfilter/nfnetlink_conntrack.h), as far as they must go when what they point to has
// changed: a UDP "connection" otherwise keeps its old destination as long as packets come.
import { type Messages, NETLINK_NETFILTER, NLM_F_ACK, netlinkMessages, requestApart } from "./netlink.ts";

const CT_DELETE = (1 << 8) | 2;
const CTA_TUPLE_ORIG = 1;
const CTA_TUPLE_REPLY = 2;
const CTA_FILTER = 25;
const CTA_TUPLE_IP = 1;
const CTA_TUPLE_PROTO = 2;
const CTA_IP_V4_SRC = 1;
const CTA_IP_V6_SRC = 3;
const CTA_PROTO_NUM = 1;
const CTA_PROTO_DST_PORT = 3;
const CTA_FILTER_ORIG_FLAGS = 1;
const CTA_FILTER_REPLY_FLAGS = 2;
const F_IP_SRC = 1;
const F_PROTO_NUM = 1 << 3;
const F_PROTO_DST_PORT = 1 << 5;

export type ForgetConnections =
  /** What was sent to this port of any address. */
  | { protocol: number; port: number; family: number }
  /** What this address answers. */
  | { address: Uint8Array; protocol: number };

function describe(m: Messages, what: ForgetConnections): void {
  const v6 = "address" in what ? what.address.length === 16 : what.family === 10;
  m.message(CT_DELETE, NLM_F_ACK, "forget connections");
  m.u8(v6 ? 10 : 2);
  m.u8(1); // version 1: the family counts
  m.u16be(0);
  const protocol = () => {
    m.attrU8(CTA_PROTO_NUM, what.protocol);
    if ("port" in what) m.attrU16be(CTA_PROTO_DST_PORT, what.port);
  };
  if ("address" in what) {
    m.nest(CTA_TUPLE_REPLY, () => {
      m.nest(CTA_TUPLE_IP, () => m.attr(v6 ? CTA_IP_V6_SRC : CTA_IP_V4_SRC, what.address));
      m.nest(CTA_TUPLE_PROTO, protocol);
    });
  } else m.nest(CTA_TUPLE_ORIG, () => m.nest(CTA_TUPLE_PROTO, protocol));
  m.nest(CTA_FILTER, () => {
    m.attrU32(CTA_FILTER_ORIG_FLAGS, "address" in what ? 0 : F_PROTO_NUM | F_PROTO_DST_PORT);
    m.attrU32(CTA_FILTER_REPLY_FLAGS, "address" in what ? F_IP_SRC | F_PROTO_NUM : 0);
  });
}

/** Removes the entries, off the event loop: the kernel walks its table. Needs Linux 5.8. */
export async function forgetConnections(list: ForgetConnections[]): Promise<void> {
  for (const what of list) {
    const m = netlinkMessages(256);
    describe(m, what);
    await requestApart(NETLINK_NETFILTER, m);
  }
}
