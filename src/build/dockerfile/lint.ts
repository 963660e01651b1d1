// Build checks: what is no mistake, but likely none that was meant (Docker docs, "Build checks"). Names, sentences and addresses are those of the documentation,
// because people search for them and put names into `# check=skip=`.
import { invalidArgument } from "../../lib/errors.ts";
import type { Range } from "./source.ts";

const BASE = "https://docs.docker.com/go/dockerfile/rule/";

interface Rule {
  description: string;
  url: string;
  experimental?: boolean;
}

const rule = (path: string, description: string, experimental = false): Rule => ({ description, url: `${BASE}${path}/`, experimental });

export const RULES = {
  StageNameCasing: rule("stage-name-casing", "Stage names should be lowercase"),
  FromAsCasing: rule("from-as-casing", "The 'as' keyword should match the case of the 'from' keyword"),
  NoEmptyContinuation: rule("no-empty-continuation", "Empty continuation lines will become errors in a future release"),
  ConsistentInstructionCasing: rule(
    "consistent-instruction-casing",
    "All commands within the Dockerfile should use the same casing (either upper or lower)",
  ),
  DuplicateStageName: rule("duplicate-stage-name", "Stage names should be unique"),
  ReservedStageName: rule("reserved-stage-name", "Reserved words should not be used as stage names"),
  JSONArgsRecommended: rule(
    "json-args-recommended",
    "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals",
  ),
  MaintainerDeprecated: rule(
    "maintainer-deprecated",
    "The MAINTAINER instruction is deprecated, use a label instead to define an image author",
  ),
  UndefinedArgInFrom: rule("undefined-arg-in-from", "FROM command must use declared ARGs"),
  WorkdirRelativePath: rule(
    "workdir-relative-path",
    "Relative workdir without an absolute workdir declared within the build can have unexpected results if the base image changes",
  ),
  UndefinedVar: rule("undefined-var", "Variables should be defined before their use"),
  MultipleInstructionsDisallowed: rule(
    "multiple-instructions-disallowed",
    "Multiple instructions of the same type should not be used in the same stage",
  ),
  LegacyKeyValueFormat: rule("legacy-key-value-format", "Legacy key/value format with whitespace separator should not be used"),
  RedundantTargetPlatform: rule(
    "redundant-target-platform",
    "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
  ),
  SecretsUsedInArgOrEnv: rule("secrets-used-in-arg-or-env", "Sensitive data should not be used in the ARG or ENV commands"),
  InvalidDefaultArgInFrom: rule(
    "invalid-default-arg-in-from",
    "Default value for global ARG results in an empty or invalid base image name",
  ),
  FromPlatformFlagConstDisallowed: rule("from-platform-flag-const-disallowed", "FROM --platform flag should not use a constant value"),
  CopyIgnoredFile: rule("copy-ignored-file", "Attempting to Copy file that is excluded by .dockerignore", true),
  InvalidDefinitionDescription: rule(
    "invalid-definition-description",
    "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. If this is not intended to be a description comment, add an empty line or comment between the instruction and the comment.",
    true,
  ),
  ExposeProtoCasing: rule("expose-proto-casing", "Protocol in EXPOSE instruction should be lowercase"),
  ExposeInvalidFormat: rule(
    "expose-invalid-format",
    "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error in a future release",
  ),
} satisfies Record<string, Rule>;

export type RuleName = keyof typeof RULES;

export interface LintWarning {
  rule: RuleName;
  message: string;
  description: string;
  url: string;
  range: Range;
}

/** What `# check=` and BUILDKIT_DOCKERFILE_CHECK say: "skip=A,B;error=true;experimental=C". */
export interface LintSettings {
  skip: ReadonlySet<string> | "all";
  experimental: ReadonlySet<string> | "all";
  error: boolean;
}

export function parseCheck(text: string | undefined): LintSettings {
  const settings: LintSettings = { skip: new Set(), experimental: new Set(), error: false };
  const names = (value: string) => {
    const list = value.split(",").map((name) => name.trim().toLowerCase());
    return list.includes("all") ? "all" : new Set(list);
  };
  for (const part of (text ?? "").split(";").map((each) => each.trim())) {
    if (part === "") continue;
    const equals = part.indexOf("=");
    if (equals < 0) throw invalidArgument(`invalid check option ${JSON.stringify(part)}`);
    const key = part.slice(0, equals).trim().toLowerCase();
    const value = part.slice(equals + 1).trim();
    if (key === "skip") settings.skip = names(value);
    else if (key === "experimental") settings.experimental = names(value);
    else if (key === "error") {
      if (!/^(1|0|t|f|true|false)$/i.test(value)) throw invalidArgument(`failed to parse check option ${JSON.stringify(part)}`);
      settings.error = /^(1|t|true)$/i.test(value);
    } else throw invalidArgument(`invalid check option ${JSON.stringify(part)}`);
  }
  return settings;
}

export interface Linter {
  warn(rule: RuleName, range: Range, message: string): void;
  readonly warnings: readonly LintWarning[];
  /** The rules that were violated, where the settings make errors of warnings. */
  violated(): string | undefined;
}

/** At most this many are told: a hostile file could have one for each of its words. */
const MAX_WARNINGS = 1000;

export function createLinter(settings: LintSettings): Linter {
  const warnings: LintWarning[] = [];
  const seen = new Set<string>();
  const has = (set: ReadonlySet<string> | "all", name: string) => set === "all" || set.has(name.toLowerCase());
  return {
    warnings,
    warn(name, range, message) {
      const { description, url, experimental }: Rule = RULES[name];
      if (experimental ? !has(settings.experimental, name) : has(settings.skip, name)) return;
      const key = `${name} ${range.start} ${message}`;
      if (seen.has(key) || warnings.length >= MAX_WARNINGS) return;
      seen.add(key);
      warnings.push({ rule: name, message, description, url, range });
    },
    violated() {
      if (!settings.error || warnings.length === 0) return undefined;
      const names = [...new Set(warnings.map((each) => each.rule))];
      return `lint violation found for rules: ${names.join(", ")}`;
    },
  };
}

/** How many single letters two words differ in. */
export function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) next.push(Math.min(next[j - 1]! + 1, row[j]! + 1, row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1)));
    row = next;
  }
  return row[b.length]!;
}

/** The one of `names` that was probably meant; "" where none is close. */
export function suggestion(word: string, names: Iterable<string>): string {
  let best = "";
  let least = word.length > 100 ? 0 : word.length > 3 ? 3 : 2;
  for (const name of names) {
    if (Math.abs(name.length - word.length) >= least || name === word) continue;
    const d = distance(word.toLowerCase(), name.toLowerCase());
    if (d < least) [best, least] = [name, d];
  }
  return best;
}
