// The Dockerfile frontend: from the attributes that a client sends to trees and image configs, in LLB. `# syntax=` means this one, whatever it names.
//
//   const result = await frontend({ name: "dockerfile.v0", attrs: { filename: "Dockerfile", "build-arg:A": "1" }, session, host, signal, onWarning });
//   result.metadata.get("containerimage.config");             // JSON of an image config; with several platforms "containerimage.config/linux/amd64", …
//   result.metadata.get("refs.platforms");                     // JSON { Platforms: [{ ID, Platform }] } where there are several
//
// Subrequests (attribute requestid: frontend.subrequests.describe, frontend.outline, frontend.targets, frontend.lint) answer result.json, result.txt and version in the metadata
// and no tree. Errors that are about lines of the Dockerfile carry `range` and `source` (a SourceInfo).
import { unimplemented } from "../../lib/errors.ts";
import type { Result } from "../session.ts";
import type { FrontendRequest } from "./types.ts";

export async function frontend(request: FrontendRequest): Promise<Result> {
  throw unimplemented(`the frontend ${request.name}`);
}
