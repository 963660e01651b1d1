// --mount type=…,source=…,target=…,… and -v.
import { resolve } from "node:path";
import type { Mount } from "../../api/types.ts";
import { csvFields } from "../flags.ts";
import { parseBytes } from "../units.ts";

type Options = { [K in "BindOptions" | "VolumeOptions" | "TmpfsOptions" | "ImageOptions"]-?: NonNullable<Mount[K]> };

/** One --mount; throws Docker's sentence where it is malformed. */
export function parseMount(text: string): Mount {
  const fields = csvFields(text);
  if (fields.length === 0) throw new Error("value is empty");
  const mount: Mount = {};
  let type: string = "volume";
  const options: Partial<Options> = {};
  const part = <K extends keyof Options>(key: K): Options[K] => {
    options[key] ??= {} as Options[K];
    return options[key] as Options[K];
  };
  const volumeLabels: Record<string, string> = {};
  for (const field of fields) {
    const equals = field.indexOf("=");
    const key = (equals < 0 ? field : field.slice(0, equals)).toLowerCase();
    const value = equals < 0 ? undefined : field.slice(equals + 1);
    if (value === undefined) {
      if (key === "readonly" || key === "ro") {
        mount.ReadOnly = true;
        continue;
      }
      if (key === "volume-nocopy") {
        part("VolumeOptions").NoCopy = true;
        continue;
      }
      if (key === "bind-nonrecursive") {
        part("BindOptions").NonRecursive = true;
        continue;
      }
      throw new Error(`invalid field '${field}' must be a key=value pair`);
    }
    const flag = (): boolean => {
      if (["1", "t", "T", "TRUE", "true", "True"].includes(value)) return true;
      if (["0", "f", "F", "FALSE", "false", "False"].includes(value)) return false;
      throw new Error(`invalid value for ${key}: ${value}`);
    };
    switch (key) {
      case "type":
        type = value.toLowerCase();
        break;
      case "source":
      case "src":
        mount.Source = value === "." || value.startsWith("./") || value === ".." || value.startsWith("../") ? resolve(value) : value;
        break;
      case "target":
      case "dst":
      case "destination":
        mount.Target = value;
        break;
      case "readonly":
      case "ro":
        mount.ReadOnly = flag();
        break;
      case "consistency":
        mount.Consistency = value.toLowerCase();
        break;
      case "bind-propagation":
        part("BindOptions").Propagation = value.toLowerCase() as "private";
        break;
      case "bind-nonrecursive":
        part("BindOptions").NonRecursive = flag();
        break;
      case "bind-recursive":
        if (value === "enabled") break;
        if (value === "disabled") part("BindOptions").NonRecursive = true;
        else if (value === "writable") part("BindOptions").ReadOnlyNonRecursive = true;
        else if (value === "readonly") part("BindOptions").ReadOnlyForceRecursive = true;
        else throw new Error(`invalid value for ${key}: ${value} (must be "enabled", "disabled", "writable", or "readonly")`);
        break;
      case "volume-subpath":
        part("VolumeOptions").Subpath = value;
        break;
      case "volume-nocopy":
        part("VolumeOptions").NoCopy = flag();
        break;
      case "volume-label": {
        const at = value.indexOf("=");
        volumeLabels[at < 0 ? value : value.slice(0, at)] = at < 0 ? "" : value.slice(at + 1);
        part("VolumeOptions").Labels = volumeLabels;
        break;
      }
      case "volume-driver": {
        const volume = part("VolumeOptions");
        volume.DriverConfig = { ...volume.DriverConfig, Name: value };
        break;
      }
      case "volume-opt": {
        const volume = part("VolumeOptions");
        const at = value.indexOf("=");
        volume.DriverConfig = {
          ...volume.DriverConfig,
          Options: { ...volume.DriverConfig?.Options, [at < 0 ? value : value.slice(0, at)]: at < 0 ? "" : value.slice(at + 1) },
        };
        break;
      }
      case "image-subpath":
        part("ImageOptions").Subpath = value;
        break;
      case "tmpfs-size": {
        const size = parseBytes(value);
        if (size === undefined) throw new Error(`invalid value for ${key}: ${value}`);
        part("TmpfsOptions").SizeBytes = size;
        break;
      }
      case "tmpfs-mode":
        if (!/^[0-7]+$/.test(value)) throw new Error(`invalid value for ${key}: ${value}`);
        part("TmpfsOptions").Mode = Number.parseInt(value, 8);
        break;
      default:
        throw new Error(`unexpected key '${key}' in '${field}'`);
    }
  }
  if (type === "") throw new Error("type is required");
  if (!mount.Target) throw new Error("target is required");
  const own: Record<string, keyof Options> = { bind: "BindOptions", volume: "VolumeOptions", tmpfs: "TmpfsOptions", image: "ImageOptions" };
  for (const [kind, key] of Object.entries(own)) {
    if (options[key] && type !== kind) throw new Error(`cannot mix '${kind}-*' options with mount type '${type}'`);
  }
  if (options.BindOptions?.ReadOnlyNonRecursive && !mount.ReadOnly)
    throw new Error("option 'bind-recursive=writable' requires 'readonly' to be specified in conjunction");
  if (options.BindOptions?.ReadOnlyForceRecursive) {
    if (!mount.ReadOnly) throw new Error("option 'bind-recursive=readonly' requires 'readonly' to be specified in conjunction");
    if (options.BindOptions.Propagation !== "rprivate")
      throw new Error("option 'bind-recursive=readonly' requires 'bind-propagation=rprivate' to be specified in conjunction");
  }
  return { Type: type as NonNullable<Mount["Type"]>, ...mount, ...options };
}

/** Splits -v specs into binds and anonymous volumes. A relative source is made absolute. */
export function parseVolumes(specs: readonly string[]): { binds: string[]; volumes: Record<string, Record<string, never>> } {
  const binds: string[] = [];
  const volumes: Record<string, Record<string, never>> = {};
  for (const spec of specs) {
    const parts = spec.split(":");
    if (parts.length > 1) {
      if (parts.length < 4 && parts.includes("")) throw new Error(`invalid spec: ${spec}: empty section between colons`);
      const source = parts[0]!;
      if (source === "." || source === ".." || source.startsWith("./") || source.startsWith("../")) parts[0] = resolve(source);
      binds.push(parts.join(":"));
    } else {
      volumes[spec] = {};
    }
  }
  return { binds, volumes };
}
