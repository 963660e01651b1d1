import type { SystemVersion } from "../../api/types.ts";
import { MAX_VERSION, minor } from "../../client/index.ts";
import { BUILD_TIME, COMMIT } from "../../lib/build.ts";
import { command, none, StatusError } from "../command.ts";
import { string } from "../flags.ts";
import { VERSION } from "../index.ts";
import { align } from "../table.ts";
import { compile, json, STRUCT, TemplateError, TemplateSyntaxError } from "../template/index.ts";
import { buildDate } from "../units.ts";

export default command({
  use: "[OPTIONS]",
  short: "Show the Docker version information",
  args: none,
  flags: {
    format: string(
      "f",
      "Format output using a custom template:\n'json':             Print in JSON format\n'TEMPLATE':         Print output using the given Go template",
    ),
  },
  async run(cli, flags) {
    const run = compileFormat(flags.format);
    const client = await cli.client();
    let server: SystemVersion | undefined;
    let failure: unknown;
    try {
      server = await client.system.version();
    } catch (error) {
      failure = error;
    }
    const version = server ? await client.version() : MAX_VERSION;
    const arch = process.arch === "x64" ? "amd64" : process.arch;
    const info = {
      Client: {
        Version: VERSION,
        ApiVersion: version,
        DefaultAPIVersion: MAX_VERSION,
        GitCommit: COMMIT,
        GoVersion: runtimeName(),
        Os: "linux",
        Arch: arch,
        BuildTime: buildDate(BUILD_TIME),
        Context: cli.contextName(),
      },
      Server: server ? serverInfo(server) : null,
    };
    if (run) {
      try {
        cli.out(`${run(asStructs(info))}\n`);
      } catch (error) {
        if (error instanceof TemplateError) {
          cli.out("\n");
          throw new StatusError(1, error.message);
        }
        throw error;
      }
    } else {
      cli.out(render(info, version));
    }
    if (failure) throw failure;
    return 0;
  },
});

function compileFormat(format: string): ((data: unknown) => string) | undefined {
  if (format === "") return undefined;
  if (format === "json") return (data) => json(data);
  try {
    return compile(format, "version");
  } catch (error) {
    if (error instanceof TemplateSyntaxError) throw new StatusError(64, `template parsing error: ${error.message}`);
    throw error;
  }
}

function runtimeName(): string {
  return typeof Bun === "undefined" ? `node ${process.versions.node}` : `bun ${Bun.version}`;
}

type Details = Record<string, string>;
type Info = { Client: Details; Server: ReturnType<typeof serverInfo> | null };

function serverInfo(server: SystemVersion) {
  const components = (server.Components ?? []).map((c) => ({ Name: c.Name, Version: c.Version, Details: (c.Details ?? {}) as Details }));
  if (components.length === 0) {
    const Details: Details = {};
    for (const key of ["ApiVersion", "MinAPIVersion", "GitCommit", "GoVersion", "Os", "Arch", "KernelVersion", "BuildTime"] as const)
      Details[key] = server[key] ?? "";
    Details.Experimental = String(server.Experimental ?? false);
    components.push({ Name: "Engine", Version: server.Version ?? "", Details });
  }
  for (const { Name, Details } of components) if (Name === "Engine") Details.BuildTime = buildDate(Details.BuildTime ?? "");
  return { Platform: { Name: "" }, ...server, Components: components };
}

/** Templates see structs: a misspelt field is an error. */
function asStructs(info: Info): Info {
  const mark = <T extends object>(object: T, type: string): T => Object.defineProperty({ ...object }, STRUCT, { value: type });
  return mark(
    { Client: mark(info.Client, "system.clientVersion"), Server: info.Server && mark(info.Server, "types.Version") },
    "system.versionInfo",
  );
}

function render(info: Info, version: string): string {
  const { Client: c, Server: s } = info;
  const lines = [
    "Client:",
    ` Version:\t${c.Version}`,
    ` API version:\t${c.ApiVersion}${minor(version) < minor(MAX_VERSION) ? ` (downgraded from ${MAX_VERSION})` : ""}`,
    ` Go version:\t${c.GoVersion}`,
    ` Git commit:\t${c.GitCommit}`,
    ` Built:\t${c.BuildTime}`,
    ` OS/Arch:\t${c.Os}/${c.Arch}`,
    ` Context:\t${c.Context}`,
  ];
  if (s) {
    lines.push("", `Server:${s.Platform.Name ? ` ${s.Platform.Name}` : ""}`);
    for (const { Name, Version, Details: d } of s.Components) {
      if (Name === "Engine") {
        lines.push(
          " Engine:",
          `  Version:\t${Version}`,
          `  API version:\t${d.ApiVersion} (minimum version ${d.MinAPIVersion})`,
          `  Go version:\t${d.GoVersion}`,
          `  Git commit:\t${d.GitCommit}`,
          `  Built:\t${d.BuildTime ?? ""}`,
          `  OS/Arch:\t${d.Os}/${d.Arch}`,
          `  Experimental:\t${d.Experimental ?? "false"}`,
        );
        continue;
      }
      lines.push(` ${Name}:`, `  Version:\t${Version}`);
      for (const key of Object.keys(d).sort()) lines.push(`  ${key}:\t${d[key]}`);
    }
  }
  return `${align(lines.join("\n"), { minWidth: 20, padding: 1 })}\n`;
}
