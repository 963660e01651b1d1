// Networks of the drivers macvlan and ipvlan: containers as neighbours of a host's link.
import { afterAll, afterEach, beforeAll, expect, test } from "bun:test";
import { spawnSync } from "node:child_process";
import { createHarness, type Harness, isolated, until, web } from "./harness.ts";

const inside = isolated(import.meta.path);
const it = inside ? test : (_name: string, _body: () => unknown) => {};
const h: Harness = inside ? createHarness("jubakot8", "10.213.48.1/24") : (undefined as never);
const parent = "jubakot8-out";
let outside: ReturnType<Harness["outsideHost"]>;

beforeAll(async () => {
  if (!inside) return;
  await h.open();
  outside = h.outsideHost();
  await h.sh(`ip link set ${parent} up`);
  await h.sh("ip addr add 10.213.50.200/24 dev eth0; ip addr add fd00:213:50::200/64 dev eth0 nodad", outside.netns);
});
afterEach(() => h?.endAll());
afterAll(async () => {
  if (!inside) return;
  for (const network of (await h.call("GET", "/networks")).json)
    if (["macvlan", "ipvlan"].includes(network.Driver)) await h.call("DELETE", `/networks/${network.Id}`);
  await outside.close();
  await h.close();
});

const kernelHas = (kind: string) => {
  const made = spawnSync("sh", ["-c", `ip link add link ${parent} name jubakoprobe type ${kind} && ip link del jubakoprobe`]);
  return made.status === 0;
};
const ipam = (...subnets: string[]) => ({ Config: subnets.map((Subnet) => ({ Subnet })) });
const create = (Name: string, Driver: string, more: object = {}) => h.call("POST", "/networks/create", { Name, Driver, ...more });
const at = (name: string) => ({ host: { NetworkMode: name }, endpoints: { [name]: {} } });
const links = (netns: string) => h.sh("ip -o link show | cut -d: -f2 | cut -d@ -f1", netns);

for (const driver of ["macvlan", "ipvlan"])
  it(`${driver}: containers are neighbours of the parent's network, find each other by name, come and go`, async () => {
    if (!kernelHas(driver)) return console.log(`skip: this kernel has no ${driver}`);
    const name = `lan-${driver}`;
    const made = await create(name, driver, {
      EnableIPv6: true,
      IPAM: ipam("10.213.50.0/24", "fd00:213:50::/64"),
      Options: { parent },
    });
    expect(made.status).toBe(201);
    const { json } = await h.call("GET", `/networks/${name}`);
    expect(json).toMatchObject({
      Driver: driver,
      Options: { parent },
      IPAM: { Config: [{ Subnet: "10.213.50.0/24", Gateway: "10.213.50.1" }, {}] },
    });
    const one = await h.run("one", at(name));
    const two = await h.run("two", { ...at(name), command: web("two") });
    expect(one.networks[name]).toMatchObject({
      IPAddress: "10.213.50.2",
      Gateway: "10.213.50.1",
      GlobalIPv6Address: "fd00:213:50::2",
      MacAddress: driver === "macvlan" ? expect.stringMatching(/^02:42(:[0-9a-f]{2}){4}$/) : "",
    });
    const ns = h.netns(one);
    expect(await h.sh("ip -o -d link show eth0", ns)).toContain(`${driver} mode ${driver === "macvlan" ? "bridge" : "l2"}`);
    expect(await h.sh("ip route show default", ns)).toContain("default via 10.213.50.1 dev eth0");
    for (const address of ["10.213.50.200", "fd00:213:50::200"])
      expect(await h.sh(`busybox ping -c1 -W2 ${address} | grep -c ' 0% packet loss'`, ns)).toBe("1\n");
    expect(await h.get("http://10.213.50.3/", outside.netns)).toBe("two");
    expect(await h.lookup("two", ns)).toContain("10.213.50.3");
    expect(Object.keys((await h.call("GET", `/networks/${name}`)).json.Containers).length).toBe(2);
    const third = await h.run("third");
    await h.call("POST", `/networks/${name}/connect`, {
      Container: "third",
      EndpointConfig: { IPAMConfig: { IPv4Address: "10.213.50.77" } },
    });
    expect(await h.sh("ip -o -4 addr show eth1", h.netns(third))).toContain("10.213.50.77/24");
    await h.call("POST", `/networks/${name}/disconnect`, { Container: "third" });
    expect(await links(h.netns(third))).toBe(" lo\n eth0\n");
    const was = two.networks[name]!.EndpointID;
    await h.end(two);
    expect(two.networks[name]).toMatchObject({ MacAddress: "", IPAddress: "", EndpointID: "" });
    const again = await h.run("again", at(name));
    expect(again.networks[name]!.IPAddress).toBe("10.213.50.3");
    expect(again.networks[name]!.EndpointID).not.toBe(was);
    await h.endAll();
    expect((await h.call("DELETE", `/networks/${name}`)).status).toBe(204);
    expect(await h.sh(`ip link show ${parent}`)).toContain(parent);
  });

it("modes, and a parent of the network's own where none is named", async () => {
  if (kernelHas("macvlan")) {
    await create("private", "macvlan", { IPAM: ipam("10.213.51.0/24"), Options: { parent, macvlan_mode: "private" } });
    const record = await h.run("alone", at("private"));
    expect(await h.sh("ip -o -d link show eth0", h.netns(record))).toContain("macvlan mode private");
    await h.endAll();
    await h.call("DELETE", "/networks/private");
  }
  if (kernelHas("ipvlan")) {
    await create("third", "ipvlan", { IPAM: ipam("10.213.52.0/24"), Options: { parent, ipvlan_mode: "l3" } });
    const record = await h.run("routed", at("third"));
    expect(await h.sh("ip route show default", h.netns(record))).toBe("default dev eth0 scope link \n");
    expect(record.networks.third!.Gateway).toBe("");
    await h.endAll();
    await h.call("DELETE", "/networks/third");
  }
  const dummies = spawnSync("sh", ["-c", "ip link add jubakoprobe type dummy && ip link del jubakoprobe"]).status === 0;
  if (!dummies) return console.log("skip: this kernel has no dummy links");
  expect((await create("inner", "macvlan", { IPAM: ipam("10.213.53.0/24") })).status).toBe(201);
  const record = await h.run("inner", at("inner"));
  expect(await h.sh("ip route show default", h.netns(record))).toBe("");
  await h.endAll();
  const { json } = await h.call("GET", "/networks/inner");
  await h.call("DELETE", "/networks/inner");
  await until(async () => (await h.sh(`ip link show dm-${json.Id.slice(0, 12)} 2>&1`)).includes("does not exist"));
});

it("what makes no sense is refused in the words of Docker's drivers, and leaves nothing", async () => {
  if (kernelHas("macvlan")) {
    await create("taken", "macvlan", { IPAM: ipam("10.213.54.0/24"), Options: { parent } });
    await expect(create("other", "macvlan", { IPAM: ipam("10.213.55.0/24"), Options: { parent } })).rejects.toThrow(
      /network [0-9a-f]{64} is already using parent interface jubakot8-out/,
    );
    await h.call("DELETE", "/networks/taken");
  }
  for (const [driver, Options, message] of [
    [
      "macvlan",
      { parent, macvlan_mode: "odd" },
      "requested macvlan mode 'odd' is not valid, 'bridge' macvlan mode is the macvlan driver default",
    ],
    ["ipvlan", { parent, ipvlan_mode: "odd" }, "requested ipvlan mode 'odd' is not valid"],
    ["ipvlan", { parent, ipvlan_flag: "odd" }, "requested ipvlan flag 'odd' is not valid"],
    ["macvlan", { parent: "lo" }, "loopback interface is not a valid macvlan parent link"],
    ["macvlan", { parent: "nosuch" }, "invalid subinterface vlan name nosuch, example formatting is eth0.10"],
    ["macvlan", { parent: "nosuch.7" }, "failed to find master interface nosuch on the Docker host"],
    ["overlay", {}, "the network driver overlay is not supported"],
  ] as const)
    await expect(create("wrong", driver, { Options })).rejects.toThrow(message);
  expect((await h.call("GET", "/networks")).json.map((n: { Name: string }) => n.Name).sort()).toEqual(["bridge", "host", "none"]);
});
