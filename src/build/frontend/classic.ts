// The conversion as the classic builder needs it: one platform, the whole context at hand, and every instruction as a step that is told of in the file's order.
import type { ImageConfig } from "../../api/types.ts";
import { invalidArgument } from "../../lib/errors.ts";
import { type HistoryEntry, hostPlatform, type Platform } from "../../oci/index.ts";
import { checkText, createLinter, type Dockerfile, DockerfileError, parseCheck, type Range } from "../dockerfile/index.ts";
import { definitionToGraph } from "../graph/definition.ts";
import { createGraph, type Graph } from "../graph/llb.ts";
import type { BaseImage } from "../host.ts";
import { canonical } from "./context.ts";
import { convert, type Step as FrontendStep } from "./convert.ts";
import { createMarshaller, type Output } from "./nodes.ts";
import { localSource } from "./sources.ts";

export interface ClassicOptions {
  buildArgs: ReadonlyMap<string, string>;
  labels: Record<string, string>;
  target: string;
  /** Undefined: none was asked for. */
  platform: Platform | undefined;
  /** What the client may ask for beyond a sandbox: "security.insecure", "network.host". */
  entitlements: ReadonlySet<string>;
  resolveImage(ref: string, platform: string | undefined): Promise<BaseImage>;
}

/** One instruction; `vertex` is the tree after it, "" the empty one. */
export type Step = Omit<FrontendStep, "output"> & { vertex: string };

export interface ClassicConversion {
  graph: Graph;
  steps: Step[];
  result: {
    vertex: string;
    config: ImageConfig;
    author: string;
    platform: Platform;
    /** The vertex that made the layer; undefined: none was made here. */
    history: { entry: HistoryEntry; vertex: string | undefined }[];
  };
  /** Base images by the identifiers of their source vertices. */
  images: ReadonlyMap<string, BaseImage>;
  /** Where each vertex comes from. */
  origins: ReadonlyMap<string, { range: Range; text: string }>;
  warnings: string[];
}

function checkEntitlements(file: Dockerfile, entitlements: ReadonlySet<string>): void {
  for (const instruction of file.stages.flatMap(({ instructions }) => instructions)) {
    if (instruction.kind !== "RUN") continue;
    const wanted = [
      ...(instruction.security === "insecure" ? ["security.insecure"] : []),
      ...(instruction.network === "host" ? ["network.host"] : []),
    ].find((each) => !entitlements.has(each));
    if (wanted) throw new DockerfileError(`${wanted} is not allowed`, instruction.range);
  }
}

export async function convertClassic(file: Dockerfile, options: ClassicOptions): Promise<ClassicConversion> {
  checkEntitlements(file, options.entitlements);
  const images = new Map<string, BaseImage>();
  const context = localSource("context", { sharedKeyHint: "context" }, { name: "[internal] load build context" });
  const linter = createLinter(parseCheck(options.buildArgs.get("BUILDKIT_DOCKERFILE_CHECK") ?? file.directives.check));
  checkText(file, linter);
  const made = await convert(file, {
    ...options,
    platform: options.platform ?? hostPlatform(),
    buildPlatform: hostPlatform(),
    platformGiven: options.platform !== undefined,
    showPlatform: false,
    noCache: undefined,
    resolveMode: "default",
    epoch: undefined,
    run: { network: "default", hostname: "", extraHosts: [], ulimits: [], cgroupParent: "", shmSize: 0, cacheNamespace: "" },
    contexts: { main: () => context, whole: context, named: async () => undefined, ignored: undefined, finish() {} },
    linter,
    classic: true,
    async resolveImage(ref, platform) {
      const image = await options.resolveImage(ref, platform);
      images.set(`docker-image://${canonical(ref, image.digest)}`, image);
      return image;
    },
  });
  const violated = linter.violated();
  if (violated) throw Object.assign(invalidArgument(violated), { range: linter.warnings[0]!.range });
  const graph = createGraph();
  const marshaller = createMarshaller({ filename: "Dockerfile", data: Buffer.from(file.text) });
  definitionToGraph(marshaller.definition(made.result.output), graph);
  const digest = (output: Output | undefined) => (output ? marshaller.digest(output) : "");
  const origins = new Map<string, { range: Range; text: string }>();
  const steps = made.steps.map(({ output, ...step }): Step => {
    const vertex = digest(output);
    // Stages that only lend files are inputs of the target; an instruction that the target does not have was not asked for.
    if (vertex !== "" && !graph.vertices.has(vertex)) definitionToGraph(marshaller.definition(output), graph);
    if (vertex !== "" && step.kind !== "config" && !origins.has(vertex)) origins.set(vertex, { range: step.range, text: step.text });
    return { ...step, vertex };
  });
  const { config, author, platform, history } = made.result;
  return {
    graph,
    steps,
    result: {
      vertex: digest(made.result.output),
      config,
      author,
      platform,
      history: history.map(({ entry, output }) => ({ entry, vertex: output && digest(output) })),
    },
    images,
    origins,
    warnings: made.unused.length > 0 ? [`One or more build-args [${made.unused.join(" ")}] were not consumed`] : [],
  };
}
