// SBOM attestations (BuildKit docs, "SBOM scanning protocol"): a scanner image reads the trees that were built and writes in-toto statements.
import type { MessageInitShape } from "@bufbuild/protobuf";
import { type ExecOpSchema, MountType, NetMode, SecurityMode } from "../../gen/pb_pb.ts";
import { failedPrecondition } from "../../lib/errors.ts";
import { parseBool } from "../../lib/parse-bool.ts";
import { formatPlatform, hostPlatform } from "../../oci/index.ts";
import { SPDX } from "../attests.ts";
import type { Attestation, Result } from "../session.ts";
import { imageOutput } from "./context.ts";
import { createMarshaller, importDefinition, type Marshaller, type Output } from "./nodes.ts";
import type { FrontendOptions } from "./options.ts";
import type { FrontendRequest } from "./types.ts";

/** What it calls the tree that the image is made of; clients tell it from the rest by this name. */
const CORE = "sbom";
const SOURCES = "/run/src";
const DESTINATION = "/run/out";

/** What a scanner looks at. */
export interface ScanTargets {
  core: Output | undefined;
  /** Further trees by name: stages, the context. */
  extras: ReadonlyMap<string, Output | undefined>;
  ignoreCache: boolean;
}

export interface ScanStage {
  name: string;
  output: Output | undefined;
  /** Its variables. */
  args: ReadonlyMap<string, string | undefined>;
  ignoreCache: boolean;
}

/** What an SBOM is about: the target, and other stages and the context where a variable of the stage, or one of all, asks for them. */
export function scanTargets(
  target: ScanStage,
  others: readonly ScanStage[],
  context: Output | undefined,
  globals: ReadonlyMap<string, string>,
): ScanTargets {
  const asks = (variable: string, { name, args }: ScanStage): boolean => {
    const value = args.get(variable) ?? globals.get(variable);
    return value !== undefined && (parseBool(value) ?? value.split(",").includes(name));
  };
  const extras = new Map<string, Output | undefined>();
  if (asks("BUILDKIT_SBOM_SCAN_CONTEXT", target)) extras.set("context", context);
  const stages = others.filter((stage) => asks("BUILDKIT_SBOM_SCAN_STAGE", stage));
  for (const { name, output } of stages) extras.set(name, output);
  return { core: target.output, extras, ignoreCache: [target, ...stages].some(({ ignoreCache }) => ignoreCache) };
}

/** `name` is the platform's. */
export type Scanner = (name: string, targets: ScanTargets, marshaller: Marshaller) => Attestation;

export async function createScanner(
  request: Pick<FrontendRequest, "host" | "session">,
  { generator, attrs }: NonNullable<FrontendOptions["sbom"]>,
  mode: FrontendOptions["resolveMode"],
): Promise<Scanner> {
  const image = await request.host.resolveImage(generator, undefined, mode);
  const { Entrypoint, Cmd, Env, WorkingDir } = image.config;
  const args = [...(Entrypoint ?? []), ...(Cmd ?? [])];
  if (args.length === 0) throw failedPrecondition(`scanner ${generator} does not have cmd`);
  const scanner = imageOutput(generator, image, hostPlatform(), `docker-image://${generator}`, mode);

  return (name, { core, extras, ignoreCache }, marshaller) => {
    const inputs: Output[] = [scanner];
    const read = (tree: Output | undefined, dest: string) => {
      if (tree) inputs.push(tree);
      return { input: tree ? BigInt(inputs.length - 1) : -1n, output: -1n, dest, mountType: MountType.BIND, readonly: true };
    };
    const sources = [
      read(core, `${SOURCES}/core/${CORE}`),
      ...[...extras].map(([extra, tree]) => read(tree, `${SOURCES}/extras/${CORE}-${extra}`)),
    ];
    const exec: MessageInitShape<typeof ExecOpSchema> = {
      meta: {
        args,
        env: [
          ...(Env ?? []),
          `BUILDKIT_SCAN_DESTINATION=${DESTINATION}/`,
          `BUILDKIT_SCAN_SOURCE=${SOURCES}/core/${CORE}`,
          ...(extras.size > 0 ? [`BUILDKIT_SCAN_SOURCE_EXTRAS=${SOURCES}/extras`] : []),
          ...Object.entries(attrs).map(([key, value]) => `BUILDKIT_SCAN_${key}=${value}`),
        ],
        cwd: WorkingDir || "/",
        user: "",
      },
      mounts: [
        { input: 0n, output: -1n, dest: "/", mountType: MountType.BIND },
        ...sources,
        { input: -1n, output: 0n, dest: DESTINATION, mountType: MountType.BIND },
        { input: -1n, output: -1n, dest: "/tmp", mountType: MountType.TMPFS },
      ],
      network: NetMode.UNSET,
      security: SecurityMode.SANDBOX,
    };
    const meta = { name: `[${name}] generating sbom using ${generator}`, ...(ignoreCache ? { ignoreCache } : {}) };
    const output: Output = {
      node: { op: { case: "exec", value: exec as never }, inputs, platform: hostPlatform(), meta },
      index: 0,
    };
    return {
      kind: "bundle",
      ref: request.session.load(marshaller.definition(output)),
      path: "/",
      metadata: new Map([
        ["reason", Buffer.from("sbom")],
        ["sbom-core", Buffer.from(CORE)],
      ]),
      predicateType: SPDX,
      subjects: [],
    };
  };
}

/** Adds SBOMs to a result that has none: what a client's own frontend, or a plain definition, made. */
export async function scanResult(
  request: Pick<FrontendRequest, "host" | "session">,
  result: Result,
  sbom: NonNullable<FrontendOptions["sbom"]>,
  { mode, useCache }: { mode: FrontendOptions["resolveMode"]; useCache: boolean },
): Promise<void> {
  if ([...result.attestations.values()].some((list) => list.some(({ predicateType }) => predicateType === SPDX))) return;
  const scan = await createScanner(request, sbom, mode);
  const marshaller = createMarshaller({ filename: "", data: new Uint8Array() });
  const parts = result.refs.size > 0 ? [...result.refs] : [[platformsOf(result)[0] ?? formatPlatform(hostPlatform()), result.ref] as const];
  for (const [name, ref] of parts) {
    if (!ref?.edge) continue;
    const core = importDefinition(ref.definition());
    const made = scan(name, { core, extras: new Map(), ignoreCache: !useCache }, marshaller);
    result.attestations.set(name, [...(result.attestations.get(name) ?? []), made]);
  }
}

/** Names of a result's platforms, as its metadata have them. */
function platformsOf({ metadata }: Result): string[] {
  const text = Buffer.from(metadata.get("refs.platforms") ?? []).toString("utf8");
  if (text === "") return [];
  const { Platforms } = JSON.parse(text) as { Platforms?: { ID?: string }[] };
  return (Platforms ?? []).map(({ ID }) => ID ?? "");
}
