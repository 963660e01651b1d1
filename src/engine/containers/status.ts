// "Up 5 minutes (healthy)": a container's state in words, as `docker ps` shows it.
import type { ContainerState } from "../../api/types.ts";

/** A length of time in Docker's words. */
export function humanDuration(ms: number): string {
  const seconds = Math.floor(ms / 1000);
  if (seconds < 1) return "Less than a second";
  if (seconds === 1) return "1 second";
  if (seconds < 60) return `${seconds} seconds`;
  const minutes = Math.floor(seconds / 60);
  if (minutes === 1) return "About a minute";
  if (minutes < 60) return `${minutes} minutes`;
  const hours = Math.round(ms / 3_600_000);
  if (hours === 1) return "About an hour";
  if (hours < 48) return `${hours} hours`;
  if (hours < 24 * 7 * 2) return `${Math.floor(hours / 24)} days`;
  if (hours < 24 * 30 * 2) return `${Math.floor(hours / 24 / 7)} weeks`;
  if (hours < 24 * 365 * 2) return `${Math.floor(hours / 24 / 30)} months`;
  return `${Math.floor(ms / 3_600_000 / 24 / 365)} years`;
}

export function statusText(state: ContainerState, now = Date.now()): string {
  const since = (time: string | undefined) => humanDuration(now - Date.parse(time ?? ""));
  if (state.Restarting) return `Restarting (${state.ExitCode ?? 0}) ${since(state.FinishedAt)} ago`;
  if (state.Running) {
    if (state.Paused) return `Up ${since(state.StartedAt)} (Paused)`;
    const health = state.Health?.Status;
    const shown = health && health !== "none" ? ` (${health === "starting" ? "health: starting" : health})` : "";
    return `Up ${since(state.StartedAt)}${shown}`;
  }
  if (state.Status === "removing") return "Removal In Progress";
  if (state.Dead) return "Dead";
  if (state.Status === "created") return "Created";
  if (!state.FinishedAt || state.FinishedAt.startsWith("0001")) return "";
  return `Exited (${state.ExitCode ?? 0}) ${since(state.FinishedAt)} ago`;
}
