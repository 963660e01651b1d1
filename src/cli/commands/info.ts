import type { SystemInfo } from "../../api/types.ts";
import { BUILD_TIME, COMMIT } from "../../lib/build.ts";
import { command, none, StatusError } from "../command.ts";
import { string } from "../flags.ts";
import { VERSION } from "../index.ts";
import { parseExact } from "../json-text.ts";
import { compile, json, STRUCT, TemplateError, TemplateSyntaxError } from "../template/index.ts";
import { buildDate, bytesSize } from "../units.ts";

type ClientInfo = {
  Debug: boolean;
  Version: string;
  GitCommit: string;
  GoVersion: string;
  Os: string;
  Arch: string;
  BuildTime: string;
  Context: string;
  Plugins: never[];
  Warnings: null;
};

export default command({
  use: "[OPTIONS]",
  short: "Display system-wide information",
  args: none,
  flags: { format: string("f", "Format output using a custom template: 'json', or a Go template") },
  async run(cli, flags) {
    const context = cli.contextName();
    const client: ClientInfo = {
      Debug: false,
      Version: VERSION,
      GitCommit: COMMIT,
      GoVersion: typeof Bun === "undefined" ? `node ${process.versions.node}` : `bun ${Bun.version}`,
      Os: "linux",
      Arch: process.arch === "x64" ? "amd64" : process.arch,
      BuildTime: buildDate(BUILD_TIME),
      Context: context,
      Plugins: [],
      Warnings: null,
    };
    let info: SystemInfo = {};
    let failure: unknown;
    try {
      const api = await cli.client();
      info = parseExact(await (await api.caller.send("GET", "/info")).text()) as SystemInfo;
    } catch (error) {
      failure = error;
    }
    if (flags.format !== "") {
      if (failure) throw failure;
      return formatted(cli.out, flags.format, { ...info, ClientInfo: client });
    }
    cli.out(clientPart(client));
    cli.out("\nServer:\n");
    if (failure) {
      throw failure;
    }
    cli.out(serverPart(info));
    for (const warning of info.Warnings ?? []) cli.err(`${warning}\n`);
    return 0;
  },
});

function formatted(out: (text: string) => void, format: string, data: Record<string, unknown>): number {
  if (format === "json") {
    out(`${json(data)}\n`);
    return 0;
  }
  try {
    const template = compile(format);
    Object.defineProperty(data, STRUCT, { value: "system.dockerInfo" });
    out(`${template(data)}\n`);
    return 0;
  } catch (error) {
    if (error instanceof TemplateSyntaxError) throw new StatusError(64, `template parsing error: ${error.message}`);
    if (error instanceof TemplateError) {
      out("\n");
      throw new StatusError(1, error.message);
    }
    throw error;
  }
}

function clientPart(client: ClientInfo): string {
  return `Client:\n Version:    ${client.Version}\n Context:    ${client.Context}\n Debug Mode: ${client.Debug}\n`;
}

function serverPart(info: SystemInfo): string {
  const lines: string[] = [];
  const say = (label: string, value: unknown) =>
    void (value !== undefined && value !== "" && value !== null && lines.push(` ${label}: ${value}`));
  const always = (label: string, value: unknown) => void lines.push(` ${label}: ${value ?? ""}`);
  always("Containers", info.Containers ?? 0);
  lines.push(
    `  Running: ${info.ContainersRunning ?? 0}`,
    `  Paused: ${info.ContainersPaused ?? 0}`,
    `  Stopped: ${info.ContainersStopped ?? 0}`,
  );
  always("Images", info.Images ?? 0);
  say("Server Version", info.ServerVersion);
  say("Storage Driver", info.Driver);
  for (const [name, value] of (info.DriverStatus ?? []) as [string, string][]) lines.push(`  ${name}: ${value}`);
  say("Logging Driver", info.LoggingDriver);
  say("Cgroup Driver", info.CgroupDriver);
  say("Cgroup Version", info.CgroupVersion);
  lines.push(" Plugins:", `  Volume: ${(info.Plugins?.Volume ?? []).join(" ")}`, `  Network: ${(info.Plugins?.Network ?? []).join(" ")}`);
  if ((info.Plugins?.Authorization ?? []).length > 0) lines.push(`  Authorization: ${info.Plugins!.Authorization!.join(" ")}`);
  lines.push(`  Log: ${(info.Plugins?.Log ?? []).join(" ")}`);
  if ((info.CDISpecDirs ?? []).length > 0) lines.push(" CDI spec directories:", ...info.CDISpecDirs!.map((dir) => `  ${dir}`));
  always("Swarm", info.Swarm?.LocalNodeState ?? "inactive");
  const runtimes = Object.keys(info.Runtimes ?? {}).sort();
  if (runtimes.length > 0) {
    lines.push(` Runtimes: ${runtimes.join(" ")}`);
    always("Default Runtime", info.DefaultRuntime);
  }
  if (info.OSType === "linux") {
    always("Init Binary", info.InitBinary);
    for (const [label, commit] of [
      ["containerd", info.ContainerdCommit],
      ["runc", info.RuncCommit],
      ["init", info.InitCommit],
    ] as const) {
      lines.push(` ${label} version: ${commit?.ID ?? ""}`);
    }
    if ((info.SecurityOptions ?? []).length > 0) lines.push(" Security Options:", ...info.SecurityOptions!.flatMap(securityLines));
  }
  say("Kernel Version", info.KernelVersion);
  say("Operating System", info.OperatingSystem);
  say("OSType", info.OSType);
  say("Architecture", info.Architecture);
  always("CPUs", info.NCPU ?? 0);
  always("Total Memory", bytesSize(info.MemTotal ?? 0));
  say("Name", info.Name);
  say("ID", info.ID);
  always("Docker Root Dir", info.DockerRootDir);
  always("Debug Mode", info.Debug ?? false);
  if (info.Debug) {
    lines.push(
      `  File Descriptors: ${info.NFd ?? 0}`,
      `  Goroutines: ${info.NGoroutines ?? 0}`,
      `  System Time: ${info.SystemTime ?? ""}`,
      `  EventsListeners: ${info.NEventsListener ?? 0}`,
    );
  }
  say("HTTP Proxy", info.HttpProxy);
  say("HTTPS Proxy", info.HttpsProxy);
  say("No Proxy", info.NoProxy);
  if ((info.Labels ?? []).length > 0) lines.push(" Labels:", ...info.Labels!.map((label) => `  ${label}`));
  always("Experimental", info.ExperimentalBuild ?? false);
  const registry = info.RegistryConfig;
  const insecure = [
    ...Object.values(registry?.IndexConfigs ?? {}).flatMap((index) => (index.Secure === false ? [index.Name ?? ""] : [])),
    ...(registry?.InsecureRegistryCIDRs ?? []),
  ];
  if (insecure.length > 0) lines.push(" Insecure Registries:", ...insecure.map((name) => `  ${name}`));
  if ((registry?.Mirrors ?? []).length > 0) lines.push(" Registry Mirrors:", ...registry!.Mirrors!.map((mirror) => `  ${mirror}`));
  always("Live Restore Enabled", info.LiveRestoreEnabled ?? false);
  say("Product License", info.ProductLicense);
  if ((info.DefaultAddressPools ?? []).length > 0) {
    lines.push(" Default Address Pools:", ...info.DefaultAddressPools!.map((pool) => `   Base: ${pool.Base}, Size: ${pool.Size}`));
  }
  if (info.FirewallBackend?.Driver) lines.push(` Firewall Backend: ${info.FirewallBackend.Driver}`);
  return `${lines.join("\n")}\n\n`;
}

/** "name=seccomp,profile=default" as docker lists it. */
function securityLines(option: string): string[] {
  const fields = option.split(",").map((field) => field.split("=", 2) as [string, string?]);
  if (!fields.some(([key]) => key === "name")) return [`  ${option}`];
  const title = (text: string) => text.charAt(0).toUpperCase() + text.slice(1);
  return fields.map(([key, value = ""]) => (key === "name" ? `  ${value}` : `   ${title(key)}: ${value}`));
}
