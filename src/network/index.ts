// The network layer: namespaces, bridges, endpoints, addresses, published ports, names. It knows links, subnets and packets; it must never
// know of containers, images or the Engine API, nor keep anything on disk: its caller tells what should be, the kernel says what is. At its door
// is rtnetlink and nfnetlink, spoken directly; no program is run.
//
// The nouns:
//   Namespace   a network namespace held by a descriptor, with a netlink socket inside; from a NamespacePool, or of a living process
//   Bridge      a link of the host with the gateways' addresses; `ensureBridge` is idempotent
//   Endpoint    a veth pair from a bridge into a namespace; dies with either
//   Child       a macvlan or ipvlan link in a namespace, hanging from a link of the host; dies with either
//   Allocator   the addresses of one subnet
//   Firewall    one table of nftables, constant rules, elements per bridge and port
//   BoundPort   a port of the host, held by a socket
//   Resolver    names for one namespace at 127.0.0.11
//
//   const inside = pool.take();
//   const index = plug(route, inside, { veth: "vethab12", bridge, name: "eth0", mac, addresses, mtu: 1500, isolated: false });
//   setDefaultRoutes(inside, [{ gateway, index }]);
//   … a process starts in /proc/self/fd/N of inside.fd …
//   inside.close();        // now the namespace, and with it the veth, lives as long as the process
export * from "./address.ts";
export * from "./bridge.ts";
export * from "./child.ts";
export { createForwarder, type Forwarder, type UpstreamHealth } from "./dns/forward.ts";
export { createResolver, type Names, type Resolver } from "./dns/resolver.ts";
export * from "./files.ts";
export * from "./firewall.ts";
export * from "./namespace.ts";
export * from "./pool.ts";
export * from "./ports.ts";
export { createRelay, type Relay } from "./relay.ts";
