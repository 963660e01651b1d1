// -p and --expose: [[ip:]hostPort[-hostPort]:]containerPort[-containerPort][/proto].
import type { PortMap } from "../../api/types.ts";

export interface PortSpec {
  ip: string;
  hostPort: string;
  /** "80/tcp". */
  port: string;
}

/** First and last port of "80" or "80-90"; throws where malformed. */
export function portRange(text: string): [number, number] {
  const port = (part: string) => {
    if (!/^\d+$/.test(part)) throw new Error(`strconv.ParseUint: parsing ${JSON.stringify(part)}: invalid syntax`);
    if (Number(part) > 65535) throw new Error(`strconv.ParseUint: parsing ${JSON.stringify(part)}: value out of range`);
    return Number(part);
  };
  if (text === "") throw new Error("empty string specified for ports");
  const dash = text.indexOf("-");
  if (dash < 0) return [port(text), port(text)];
  const [first, last] = [port(text.slice(0, dash)), port(text.slice(dash + 1))];
  if (last < first) throw new Error(`invalid range specified for port: ${text}`);
  return [first, last];
}

function splitProto(text: string): [string, string] {
  const [port, proto, ...more] = text.split("/");
  if (more.length > 0 || port === "") return ["", ""];
  return [port!, proto || "tcp"];
}

/** The bindings of one -p; throws Docker's sentence where it is malformed. */
export function parsePort(spec: string): PortSpec[] {
  const parts = spec.split(":");
  const last = parts.pop()!;
  const hostPart = parts.length > 0 ? parts.pop()! : "";
  let ip = parts.join(":");
  if (ip.startsWith("[") && ip.endsWith("]")) ip = ip.slice(1, -1);
  if (ip !== "" && !isAddress(ip)) throw new Error(`invalid IP address: ${ip}`);
  if (last === "") throw new Error(`no port specified: ${spec}<empty>`);
  const [container, proto] = splitProto(last);
  if (!["tcp", "udp", "sctp"].includes(proto.toLowerCase())) throw new Error(`invalid proto: ${proto}`);
  const ports = attempt(() => portRange(container), `invalid containerPort: ${container}`);
  const hosts = hostPart === "" ? undefined : attempt(() => portRange(hostPart), `invalid hostPort: ${hostPart}`);
  let wide = "";
  if (hosts && hosts[1] - hosts[0] !== ports[1] - ports[0]) {
    // A single container port takes any free one of the range.
    if (ports[0] !== ports[1]) throw new Error(`invalid ranges specified for container and host Ports: ${container} and ${hostPart}`);
    wide = `${hosts[0]}-${hosts[1]}`;
  }
  const specs: PortSpec[] = [];
  for (let i = 0; i <= ports[1] - ports[0]; i++) {
    specs.push({ ip, hostPort: wide || (hosts ? String(hosts[0] + i) : ""), port: `${ports[0] + i}/${proto.toLowerCase()}` });
  }
  return specs;
}

function attempt<T>(fn: () => T, message: string): T {
  try {
    return fn();
  } catch {
    throw new Error(message);
  }
}

export function isAddress(text: string): boolean {
  return isIPv4(text) || isIPv6(text);
}

export function isIPv4(text: string): boolean {
  return (
    /^(\d{1,3})(\.\d{1,3}){3}$/.test(text) &&
    text.split(".").every((part) => Number(part) <= 255 && (part === "0" || !part.startsWith("0")))
  );
}

export function isIPv6(text: string): boolean {
  if (!/^[0-9a-fA-F:.]+(%[\w.]+)?$/.test(text) || !text.includes(":")) return false;
  try {
    return new URL(`http://[${text.replace(/%.*/, "")}]/`).hostname !== "";
  } catch {
    return false;
  }
}

/** A long -p ("target=80,published=8080,protocol=tcp,mode=ingress") as the short one. */
export function shortForm(spec: string): string {
  if (!spec.includes("=")) return spec;
  const fields: Record<string, string> = { protocol: "tcp" };
  for (const field of spec.split(",")) {
    const [key, value] = field.split("=", 2);
    if (value === undefined || value === "") throw new Error(`invalid field ${field}`);
    if (!["protocol", "mode", "target", "published"].includes(key!.toLowerCase())) throw new Error(`invalid field key ${key}`);
    fields[key!.toLowerCase()] = value;
  }
  if (!fields.target) throw new Error('missing mandatory field "target"');
  return `${fields.published ? `${fields.published}:` : ""}${fields.target}/${fields.protocol}`;
}

export function publish(specs: readonly string[]): { exposed: Record<string, Record<string, never>>; bindings: PortMap } {
  const exposed: Record<string, Record<string, never>> = {};
  const bindings: PortMap = {};
  for (const given of specs) {
    for (const { ip, hostPort, port } of parsePort(shortForm(given))) {
      exposed[port] = {};
      const list = bindings[port] ?? [];
      list.push({ HostIp: ip, HostPort: hostPort });
      bindings[port] = list;
    }
  }
  return { exposed, bindings };
}

/** The ports of one --expose: "80", "80/udp", "80-90/tcp". */
export function expose(spec: string): string[] {
  if (spec.includes(":")) throw new Error(`invalid port format for --expose: ${spec}`);
  const [range, proto] = splitProto(spec);
  try {
    const [first, last] = portRange(range);
    if (!["tcp", "udp", "sctp"].includes(proto)) throw new Error(`invalid proto: ${proto}`);
    return Array.from({ length: last - first + 1 }, (_, i) => `${first + i}/${proto}`);
  } catch (error) {
    throw new Error(`invalid range format for --expose: ${spec}, error: ${(error as Error).message}`);
  }
}
