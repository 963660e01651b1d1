// What a Dockerfile says, typed. Words that may hold variables are kept unexpanded: their values are known only when the instruction's turn comes.
import type { Directives, Heredoc } from "./lines.ts";
import type { Range } from "./source.ts";

/** A command in exec form (a list) or shell form (one line). */
export type Command = { form: "exec"; args: string[] } | { form: "shell"; line: string };

export interface Pair {
  name: string;
  /** Unexpanded; undefined for an ARG without a default. */
  value: string | undefined;
}

export interface RunMount {
  type: "bind" | "cache" | "tmpfs" | "secret" | "ssh";
  /** Option → value as written, unexpanded; "true" for one without a value. */
  options: Record<string, string>;
}

interface Base {
  range: Range;
  original: string;
  /** As it was written: "FROM", "from". */
  keyword: string;
  /** Comments directly above. */
  comments: string[];
  heredocs: Heredoc[];
}

export interface CopyFlags {
  from: string | undefined;
  chown: string | undefined;
  chmod: string | undefined;
  link: boolean;
  parents: boolean;
  exclude: string[];
  checksum: string | undefined;
  keepGitDir: boolean;
  unpack: boolean | undefined;
}

export type Instruction = Base &
  (
    | {
        kind: "FROM";
        image: string;
        platform: string | undefined;
        name: string | undefined;
        written: { as: string; name: string } | undefined;
      }
    | { kind: "RUN"; command: Command; mounts: RunMount[]; network: string; security: string }
    | { kind: "CMD" | "ENTRYPOINT"; command: Command }
    | { kind: "COPY" | "ADD"; sources: string[]; destination: string; flags: CopyFlags }
    | { kind: "ENV" | "LABEL"; pairs: Pair[]; legacy: boolean }
    | { kind: "ARG"; pairs: Pair[] }
    | { kind: "WORKDIR" | "USER" | "STOPSIGNAL" | "MAINTAINER"; value: string }
    | { kind: "EXPOSE" | "VOLUME"; values: string[] }
    | { kind: "SHELL"; shell: string[] }
    | { kind: "ONBUILD"; trigger: string }
    | { kind: "HEALTHCHECK"; health: Health }
  );

export interface Health {
  /** ["NONE"], ["CMD", …] or ["CMD-SHELL", line]. */
  Test: string[];
  /** Nanoseconds. */
  Interval?: number;
  Timeout?: number;
  StartPeriod?: number;
  StartInterval?: number;
  Retries?: number;
}

type Narrow<I, K> = I extends { kind: infer Kinds } ? (K extends Kinds ? I & { kind: K } : never) : never;
/** The instruction of one kind. */
export type Of<K extends Instruction["kind"]> = Narrow<Instruction, K>;

export interface Stage {
  from: Of<"FROM">;
  /** As FROM … AS says, in lower case. */
  name: string | undefined;
  instructions: Instruction[];
}

export interface Dockerfile {
  directives: Directives;
  /** ARGs before the first FROM. */
  globals: Of<"ARG">[];
  stages: Stage[];
  text: string;
  emptyContinuations: Range[];
}
