// Instructions that change only the image's config; each answers its text for the history.
import { posix } from "node:path";
import type { Command, Instruction } from "../dockerfile/index.ts";
import { DockerfileError } from "../dockerfile/index.ts";
import { type Expander, type StageState, setEnv } from "./state.ts";

export const DEFAULT_SHELL = ["/bin/sh", "-c"];

export function argsOf(command: Command, state: StageState): string[] {
  if (command.form === "exec") return command.args;
  return [...(state.config.Shell?.length ? state.config.Shell : DEFAULT_SHELL), command.line];
}

const PORT = /^(\d{1,5})(?:-(\d{1,5}))?(?:\/(tcp|udp|sctp))?$/i;

function ports(text: string, instruction: Instruction): string[] {
  // An address or a port of the host before it means nothing here.
  const match = PORT.exec(text.slice(text.lastIndexOf(":") + 1));
  const from = Number(match?.[1]);
  const to = Number(match?.[2] ?? from);
  if (!match || from > to || to > 65535) throw new DockerfileError(`invalid containerPort: ${text}`, instruction.range);
  return Array.from({ length: to - from + 1 }, (_, i) => `${from + i}/${(match[3] ?? "tcp").toLowerCase()}`);
}

/** Applies an instruction to the state's config. */
export function applyConfig(state: StageState, instruction: Instruction, expand: Expander): string {
  const { config } = state;
  const { range } = instruction;
  switch (instruction.kind) {
    case "ENV": {
      // Values of one instruction do not see each other.
      const pairs = instruction.pairs.map(({ name, value }) => [expand.word(name), expand.word(value ?? "")] as const);
      for (const [name, value] of pairs) setEnv(config, name, value);
      return `ENV ${pairs.map(([name, value]) => `${name}=${value}`).join(" ")}`;
    }
    case "LABEL": {
      const pairs = instruction.pairs.map(({ name, value }) => [expand.word(name), expand.word(value ?? "")] as const);
      config.Labels = { ...config.Labels, ...Object.fromEntries(pairs) };
      return `LABEL ${pairs.map(([name, value]) => `${name}=${value}`).join(" ")}`;
    }
    case "CMD": {
      config.Cmd = instruction.command.form === "shell" && instruction.command.line === "" ? [] : argsOf(instruction.command, state);
      state.cmdSet = true;
      return `CMD ${JSON.stringify(config.Cmd)}`;
    }
    case "ENTRYPOINT": {
      config.Entrypoint = argsOf(instruction.command, state);
      if (!state.cmdSet) delete config.Cmd;
      return `ENTRYPOINT ${JSON.stringify(config.Entrypoint)}`;
    }
    case "WORKDIR": {
      const path = expand.word(instruction.value);
      if (posix.isAbsolute(path)) state.workdirSet = true;
      config.WorkingDir = posix.resolve("/", config.WorkingDir ?? "/", path);
      return `WORKDIR ${config.WorkingDir}`;
    }
    case "USER":
      config.User = expand.word(instruction.value);
      return `USER ${config.User}`;
    case "STOPSIGNAL": {
      const signal = expand.word(instruction.value);
      if (!/^(\d{1,2}|(SIG)?[A-Z][A-Z0-9]{2,}(\+\d{1,2}|-\d{1,2})?)$/i.test(signal))
        throw new DockerfileError(`Invalid signal: ${signal}`, range);
      config.StopSignal = signal;
      return `STOPSIGNAL ${signal}`;
    }
    case "MAINTAINER":
      state.author = expand.word(instruction.value);
      return `MAINTAINER ${state.author}`;
    case "EXPOSE": {
      const list = instruction.values.flatMap((value) => expand.words(value)).flatMap((value) => ports(value, instruction));
      config.ExposedPorts = { ...config.ExposedPorts, ...Object.fromEntries(list.map((port) => [port, {}])) };
      return `EXPOSE ${list.map((port) => `map[${port}:{}]`).join(" ")}`;
    }
    case "VOLUME": {
      const list = instruction.values.map((value) => expand.word(value));
      if (list.includes("")) throw new DockerfileError("VOLUME specified can not be an empty string", range);
      config.Volumes = { ...config.Volumes, ...Object.fromEntries(list.map((path) => [path, {}])) };
      return `VOLUME [${list.join(" ")}]`;
    }
    case "SHELL":
      config.Shell = instruction.shell;
      return `SHELL [${instruction.shell.join(" ")}]`;
    case "ONBUILD":
      config.OnBuild = [...(config.OnBuild ?? []), instruction.trigger];
      return `ONBUILD ${instruction.trigger}`;
    case "HEALTHCHECK":
      config.Healthcheck = instruction.health;
      return `HEALTHCHECK ${JSON.stringify(instruction.health)}`;
    default:
      throw new DockerfileError(`${instruction.kind} isn't possible here`, range);
  }
}
