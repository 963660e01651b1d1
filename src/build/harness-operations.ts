// For the tests: LLB operations from what they are about; input indexes
import type { MessageInitShape } from "@bufbuild/protobuf";
import type {
  ChownOptSchema,
  ExecOpSchema,
  FileActionCopySchema,
  FileActionMkDirSchema,
  FileActionMkFileSchema,
  FileActionRmSchema,
  FileActionSymlinkSchema,
  MountSchema,
  OpSchema,
  PlatformSchema,
} from "../gen/pb_pb.ts";
import type { Edge } from "./graph/llb.ts";

type OpInit = MessageInitShape<typeof OpSchema>;
type Init<T> = Omit<Extract<T, object>, "$typeName" | "$unknown">;
type PlatformInit = MessageInitShape<typeof PlatformSchema>;

function inputList() {
  const inputs: { digest: string; index: bigint }[] = [];
  return {
    inputs,
    /** The index of an input; -1 is the empty tree. */
    of(edge: Edge | undefined): bigint {
      if (!edge) return -1n;
      const index = BigInt(edge.index);
      const at = inputs.findIndex((each) => each.digest === edge.digest && each.index === index);
      return BigInt(at < 0 ? inputs.push({ digest: edge.digest, index }) - 1 : at);
    },
  };
}

/** "docker-image://…", "local://…", "git://…", "https://…", "oci-layout://…". */
export function sourceOp(identifier: string, attrs: Record<string, string> = {}, platform?: PlatformInit): OpInit {
  const sorted = Object.fromEntries(Object.entries(attrs).sort(([a], [b]) => (a < b ? -1 : 1)));
  return { op: { case: "source", value: { identifier, attrs: sorted } }, ...(platform ? { platform } : {}) };
}

/** A mount as LLB has it, but with an edge for its input, and with the empty tree and no output where nothing is said. */
export type MountInit = Omit<Init<MessageInitShape<typeof MountSchema>>, "input" | "output" | "dest"> & {
  dest: string;
  source?: Edge | undefined;
  output?: number;
};

export function execOp(
  exec: Omit<Init<MessageInitShape<typeof ExecOpSchema>>, "mounts">,
  mounts: readonly MountInit[],
  platform?: PlatformInit,
): OpInit {
  const list = inputList();
  const value = {
    ...exec,
    mounts: mounts.map(({ source, output = -1, ...mount }) => ({ ...mount, input: list.of(source), output: BigInt(output) })),
  };
  return { inputs: list.inputs, op: { case: "exec", value }, ...(platform ? { platform } : {}) };
}

export type ActionInit =
  | { copy: Init<MessageInitShape<typeof FileActionCopySchema>>; from: Edge | undefined }
  | { mkdir: Init<MessageInitShape<typeof FileActionMkDirSchema>> }
  | { mkfile: Init<MessageInitShape<typeof FileActionMkFileSchema>> }
  | { rm: Init<MessageInitShape<typeof FileActionRmSchema>> }
  | { symlink: Init<MessageInitShape<typeof FileActionSymlinkSchema>> };

/** Actions one after another upon a tree; output 0 is what comes of them. */
export function fileOp(base: Edge | undefined, actions: readonly ActionInit[], platform?: PlatformInit): OpInit {
  const list = inputList();
  const first = list.of(base);
  const from = actions.map((action) => ("copy" in action ? list.of(action.from) : -1n));
  const count = BigInt(list.inputs.length);
  return {
    inputs: list.inputs,
    op: {
      case: "file",
      value: {
        actions: actions.map((action, i) => ({
          input: i === 0 ? first : count + BigInt(i - 1),
          secondaryInput: from[i]!,
          output: i === actions.length - 1 ? 0n : -1n,
          action:
            "copy" in action
              ? { case: "copy" as const, value: { timestamp: -1n, mode: -1, ...action.copy } }
              : "mkdir" in action
                ? { case: "mkdir" as const, value: { timestamp: -1n, ...action.mkdir } }
                : "mkfile" in action
                  ? { case: "mkfile" as const, value: { timestamp: -1n, ...action.mkfile } }
                  : "rm" in action
                    ? { case: "rm" as const, value: action.rm }
                    : { case: "symlink" as const, value: { timestamp: -1n, ...action.symlink } },
        })),
      },
    },
    ...(platform ? { platform } : {}),
  };
}

/** "user", "user:group", by name or number; names are looked up in the tree that is changed (`base` says whether there is one). */
export function chownOpt(text: string, base: Edge | undefined): MessageInitShape<typeof ChownOptSchema> {
  const [user = "", group] = text.split(":");
  const of = (name: string) =>
    /^\d+$/.test(name)
      ? { user: { case: "byID" as const, value: Number(name) } }
      : { user: { case: "byName" as const, value: { name, input: base ? 0n : -1n } } };
  return { ...(user === "" ? {} : { user: of(user) }), ...(group === undefined || group === "" ? {} : { group: of(group) }) };
}

/** Trees upon each other; one alone is itself. */
export function mergeOp(edges: readonly Edge[]): OpInit {
  const list = inputList();
  return { op: { case: "merge", value: { inputs: edges.map((each) => ({ input: list.of(each) })) } }, inputs: list.inputs };
}

/** What `upper` has more than `lower`. */
export function diffOp(lower: Edge | undefined, upper: Edge | undefined): OpInit {
  const list = inputList();
  return {
    op: { case: "diff", value: { lower: { input: list.of(lower) }, upper: { input: list.of(upper) } } },
    inputs: list.inputs,
  };
}
