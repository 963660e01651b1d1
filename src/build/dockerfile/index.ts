// The Dockerfile language: text to typed instructions. Pure.

export { createMatcher, ignorePatterns, type Matcher, patternExpression } from "../../lib/ignore.ts";
export { checkText } from "./checks.ts";
export { type Heredoc, syntaxOf } from "./lines.ts";
export { createLinter, type Linter, type LintWarning, parseCheck, suggestion } from "./lint.ts";
export { csvFields } from "./mount.ts";
export { parseDockerfile, parseTriggers } from "./parse.ts";
export { DockerfileError, excerpt, type Range } from "./source.ts";
export type * from "./types.ts";
export { expandHeredoc, expandShown, expandWord, expandWords, rawWords, unquote, type Variables } from "./words.ts";
