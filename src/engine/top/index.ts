// GET /containers/{id}/top: `ps` of the host, for the container's processes only.
import { execFile } from "node:child_process";
import type { ContainerTopResponse } from "../../api/types.ts";
import { conflict, invalidArgument, unimplemented, unknown } from "../../lib/errors.ts";
import type { Engine } from "../context.ts";
import type { Route } from "../route.ts";
import { listProcesses, TITLES } from "./processes.ts";

function hostPs(args: string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    execFile("ps", args, { maxBuffer: 64 * 1024 * 1024, env: { PATH: process.env.PATH ?? "/usr/bin:/bin" } }, (error, stdout, stderr) => {
      if (!error) resolve(stdout);
      else if ((error as NodeJS.ErrnoException).code === "ENOENT")
        reject(unimplemented("ps arguments need a ps program on the host, and there is none"));
      else reject(unknown(`error running ps: ${stderr.trim() || error.message}`, error));
    });
  });
}

/** The table of a ps program, cut down to the processes in `pids`. The last column takes the rest of its line. */
export function parsePs(output: string, pids: Set<number>): ContainerTopResponse {
  const [head, ...lines] = output.split("\n");
  const titles = (head ?? "").trim().split(/\s+/);
  const column = titles.indexOf("PID");
  if (column < 0) throw unknown("Couldn't find PID field in ps output");
  const processes: string[][] = [];
  for (const line of lines) {
    const words = line.trim().split(/\s+/);
    const pid = words[column] ?? "";
    if (pid === "") continue;
    // "-" stands for a thread of the process above.
    if (pid !== "-" && !/^\d+$/.test(pid)) throw unknown(`Unexpected pid '${pid}'`);
    if (pid !== "-" && !pids.has(Number(pid))) continue;
    processes.push([...words.slice(0, titles.length - 1), words.slice(titles.length - 1).join(" ")]);
  }
  return { Titles: titles, Processes: processes };
}

export function topRoutes(engine: Engine): Route[] {
  return [
    {
      method: "GET",
      path: "/containers/{id}/top",
      async handle(call) {
        const args = call.query.get("ps_args") || "-ef";
        const renamed = /\s+([^\s]*)=\s*(PID[^\s]*)/.exec(args);
        if (renamed && renamed[1] !== "pid") throw invalidArgument(`specifying "${renamed[1]}=${renamed[2]}" is not allowed`);
        const record = engine.containers.get(call.params.id!);
        if (record.state.Restarting) throw conflict(`container ${record.id} is restarting, wait until the container is running`);
        if (!record.state.Running) throw conflict(`container ${record.id} is not running`);
        const { processes } = await engine.manager.tasks.listPids({ containerId: record.id });
        const pids = processes.map((each) => each.pid).sort((a, b) => a - b);
        engine.events.publish("container", "top", record.id, engine.events.containerAttributes(record));
        if (args.trim() === "-ef") return { json: { Titles: TITLES, Processes: listProcesses(pids) } };
        return { json: parsePs(await hostPs(args.trim().split(/\s+/)), new Set(pids)) };
      },
    },
  ];
}
