// Manifest lists that are being put together: files below the configuration's directory, in the docker CLI's own layout, manifests/LIST/MANIFEST, so that
// either program goes on where the other left off.
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fullString, parseReference, type Reference, withTag } from "../reference.ts";

export interface ManifestPlatform {
  architecture: string;
  os: string;
  "os.version"?: string;
  "os.features"?: string[];
  variant?: string;
}

/** One image of a list, as the file has it. */
export interface ListedManifest {
  Ref: string;
  Descriptor: { mediaType: string; digest: string; size: number; platform?: ManifestPlatform };
  /** The manifest's bytes in base64. */
  Raw: string;
  SchemaV2Manifest?: unknown;
  OCIManifest?: unknown;
}

const fileName = (reference: Reference): string => fullString(reference).replaceAll(":", "-").replaceAll("/", "_");

/** A name with a tag or a digest. */
export function listReference(text: string): Reference {
  return withTag(parseReference(text));
}

export function createStore(configDir: string) {
  const directory = (list: Reference) => join(configDir, "manifests", fileName(list));
  const read = (path: string): ListedManifest | undefined => {
    try {
      return JSON.parse(readFileSync(path, "utf8")) as ListedManifest;
    } catch (error) {
      if (["ENOENT", "ENOTDIR"].includes((error as NodeJS.ErrnoException).code ?? "")) return undefined;
      throw error;
    }
  };
  return {
    get: (list: Reference, manifest: Reference) => read(join(directory(list), fileName(manifest))),
    /** All of a list, in the order of their files' names; undefined where there is no such list. */
    list(list: Reference): ListedManifest[] | undefined {
      let names: string[];
      try {
        names = readdirSync(directory(list)).sort();
      } catch {
        return undefined;
      }
      return names.map((name) => read(join(directory(list), name))).filter((one) => one !== undefined);
    },
    save(list: Reference, manifest: Reference, content: ListedManifest): void {
      mkdirSync(directory(list), { recursive: true, mode: 0o755 });
      writeFileSync(join(directory(list), fileName(manifest)), JSON.stringify(content), { mode: 0o644 });
    },
    remove: (list: Reference) => rmSync(directory(list), { recursive: true, force: true }),
  };
}
