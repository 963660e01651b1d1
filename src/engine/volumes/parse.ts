// `-v`, `--mount` and `--volumes-from`, read and checked with dockerd's sentences. Pure: nothing here looks at the file system.
import { posix } from "node:path";
import type { Mount, MountPoint } from "../../api/types.ts";
import { invalidArgument } from "../../lib/errors.ts";

export interface Wanted {
  type: "bind" | "volume" | "tmpfs" | "image";
  /** Host path, the image, or the volume's name ("" for an anonymous one). */
  source: string;
  destination: string;
  readOnly: boolean;
  /** As the user gave it, for inspect. */
  mode: string;
  propagation: string;
  noCopy: boolean;
  driver: string | undefined;
  driverOptions: Record<string, string>;
  labels: Record<string, string>;
  subpath: string;
  /** From `-v`: a missing bind source is made; from --mount only with CreateMountpoint. */
  makeSource: boolean;
}

const PROPAGATION = ["private", "rprivate", "shared", "rshared", "slave", "rslave"];
const NAME = /^[a-zA-Z0-9][a-zA-Z0-9_.-]+$/;

export function checkVolumeName(name: string): void {
  if (name.length === 1)
    throw invalidArgument(`create ${name}: volume name is too short, names should be at least two alphanumeric characters`);
  if (!NAME.test(name) || name.length > 255) {
    throw invalidArgument(
      `create ${name}: "${name}" includes invalid characters for a local volume name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path`,
    );
  }
}

function checkDestination(path: string): string {
  if (path === "") throw new Error("field Target must not be empty");
  const clean = posix.normalize(path.replace(/\\/g, "/"));
  if (clean === "/" || clean === ".") throw new Error("invalid specification: destination can't be '/'");
  if (!clean.startsWith("/")) throw new Error(`invalid mount path: '${path}' mount path must be absolute`);
  return clean.length > 1 && clean.endsWith("/") ? clean.slice(0, -1) : clean;
}

const isLocal = (path: string) => !path.startsWith("/") && !/^\.\.(\/|$)/.test(posix.normalize(path));

/** The parts of a mode like "ro,z,rslave"; undefined where one is unknown or said twice. */
function parseMode(mode: string, bind: boolean): { readOnly: boolean; propagation: string; noCopy: boolean } | undefined {
  const out = { readOnly: false, propagation: "", noCopy: false };
  const seen = new Set<string>();
  for (const part of mode === "" ? [] : mode.split(",")) {
    let kind: string;
    if (part === "ro" || part === "rw") {
      kind = "access";
      out.readOnly = part === "ro";
    } else if (part === "z" || part === "Z") kind = "label";
    else if (part === "nocopy" || part === "copy") {
      kind = "copy";
      out.noCopy = part === "nocopy";
    } else if (["consistent", "cached", "delegated", "default"].includes(part)) kind = "consistency";
    else if (PROPAGATION.includes(part)) {
      kind = "propagation";
      out.propagation = part;
    } else return undefined;
    if (seen.has(kind)) return undefined;
    seen.add(kind);
  }
  if (bind && seen.has("copy")) return undefined;
  if (!bind && out.propagation !== "") return undefined;
  return out;
}

const plain = { driver: undefined, driverOptions: {}, labels: {}, subpath: "" };

/** `[source:]destination[:mode]` of HostConfig.Binds and `-v`. */
export function parseBind(raw: string, volumeDriver: string | undefined): Wanted {
  const invalid = (why?: unknown) => invalidArgument(`invalid volume specification: '${raw}'${why ? `: ${(why as Error).message}` : ""}`);
  const parts = raw.split(":");
  if (parts[0] === "" || parts.length > 3) throw invalid();
  const [source, destination, mode] = parts.length === 1 ? ["", parts[0]!, ""] : [parts[0]!, parts[1]!, parts[2] ?? ""];
  if (parts.length === 2 && destination !== "" && parseMode(destination, false)) throw invalid();
  const bind = source.startsWith("/");
  const parsed = parseMode(mode, bind);
  if (!parsed) throw invalidArgument(`invalid mode: ${mode}`);
  let target: string;
  try {
    target = checkDestination(destination);
  } catch (error) {
    throw invalid(new Error(`invalid mount config for type "${bind ? "bind" : "volume"}": ${(error as Error).message}`));
  }
  if (!bind && source !== "") checkVolumeName(source);
  return {
    ...plain,
    type: bind ? "bind" : "volume",
    source: bind ? posix.normalize(source) : source,
    destination: target,
    readOnly: parsed.readOnly,
    mode: mode === "" && !bind && source !== "" ? "z" : mode,
    propagation: bind ? parsed.propagation || "rprivate" : "",
    noCopy: parsed.noCopy,
    driver: volumeDriver || undefined,
    makeSource: true,
  };
}

/** An element of HostConfig.Mounts (`--mount`). */
export function parseMount(mount: Mount): Wanted {
  const type = mount.Type ?? "";
  const refuse = (why: string) => invalidArgument(`invalid mount config for type "${type}": ${why}`);
  let destination: string;
  try {
    destination = checkDestination(mount.Target ?? "");
  } catch (error) {
    throw refuse((error as Error).message);
  }
  const source = mount.Source ?? "";
  const common = { ...plain, destination, readOnly: mount.ReadOnly ?? false, mode: "", propagation: "", noCopy: false, makeSource: false };
  switch (type) {
    case "bind": {
      if (source === "") throw refuse("field Source must not be empty");
      if (mount.VolumeOptions) throw refuse("field VolumeOptions must not be specified");
      if (mount.TmpfsOptions) throw refuse("field TmpfsOptions must not be specified");
      if (!source.startsWith("/")) throw refuse(`invalid mount path: '${source}' mount path must be absolute`);
      const propagation = mount.BindOptions?.Propagation || "rprivate";
      if (!PROPAGATION.includes(propagation)) throw refuse(`invalid propagation mode: ${propagation}`);
      const makeSource = mount.BindOptions?.CreateMountpoint ?? false;
      return { ...common, type, source: posix.normalize(source), propagation, makeSource };
    }
    case "volume": {
      if (mount.BindOptions) throw refuse("field BindOptions must not be specified");
      if (mount.TmpfsOptions) throw refuse("field TmpfsOptions must not be specified");
      if (source === "" && mount.ReadOnly) throw refuse("must not set ReadOnly mode when using anonymous volumes");
      if (source !== "") checkVolumeName(source);
      const options = mount.VolumeOptions;
      const subpath = options?.Subpath ?? "";
      if (!isLocal(subpath)) throw refuse("invalid subpath: must be a relative path within the volume");
      return {
        ...common,
        type,
        source,
        noCopy: options?.NoCopy ?? false,
        driver: options?.DriverConfig?.Name || undefined,
        driverOptions: options?.DriverConfig?.Options ?? {},
        labels: options?.Labels ?? {},
        subpath,
      };
    }
    case "tmpfs": {
      if (source !== "") throw refuse("field Source must not be specified");
      if (mount.BindOptions) throw refuse("field BindOptions must not be specified");
      if (mount.VolumeOptions) throw refuse("field VolumeOptions must not be specified");
      if ((mount.TmpfsOptions?.SizeBytes ?? 0) < 0) throw refuse("size must not be negative");
      return { ...common, type, source: "" };
    }
    case "image": {
      if (mount.BindOptions) throw refuse("field BindOptions must not be specified");
      if (source === "") throw refuse("field Source must not be empty");
      const subpath = mount.ImageOptions?.Subpath ?? "";
      if (!isLocal(subpath)) throw refuse("invalid subpath: must be a relative path within the image");
      return { ...common, type, source, readOnly: true, propagation: "rprivate", subpath };
    }
    case "cluster":
      throw refuse(`mounts of type ${type} are not part of this engine`);
    default:
      throw refuse("mount type unknown");
  }
}

/** `container[:mode]` of --volumes-from. */
export function parseVolumesFrom(raw: string): { container: string; readOnly: boolean | undefined; mode: string } {
  const cut = raw.indexOf(":");
  const [container, mode] = cut < 0 ? [raw, ""] : [raw.slice(0, cut), raw.slice(cut + 1)];
  if (container === "") throw invalidArgument("volumes-from specification cannot be an empty string");
  const parsed = parseMode(mode, false);
  if (!parsed || parsed.noCopy) throw invalidArgument(`invalid mode: ${mode}`);
  return { container, readOnly: mode === "" ? undefined : parsed.readOnly, mode };
}

export function toMountPoint(wanted: Wanted, volume?: { name: string; path: string; driver: string }): MountPoint {
  const access = { Mode: wanted.mode, RW: !wanted.readOnly, Propagation: wanted.propagation };
  if (!volume) return { Type: wanted.type, Source: wanted.source, Destination: wanted.destination, ...access };
  return { Type: "volume", Name: volume.name, Source: volume.path, Destination: wanted.destination, Driver: volume.driver, ...access };
}
