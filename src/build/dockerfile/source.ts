// Places in a Dockerfile, and errors that point at them.
import { Failure } from "../../lib/errors.ts";
import type { Range } from "../../lib/excerpt.ts";

export { excerpt, type Range } from "../../lib/excerpt.ts";

/** A mistake in a Dockerfile: `message` is Docker's sentence, `excerpt` shows the lines with a caret. */
export class DockerfileError extends Failure {
  readonly range: Range;
  readonly reason: string;
  constructor(reason: string, range: Range) {
    super("InvalidArgument", `dockerfile parse error on line ${range.start}: ${reason}`);
    this.range = range;
    this.reason = reason;
  }
}
