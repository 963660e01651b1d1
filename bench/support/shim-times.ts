// What a container takes inside the shim, and each step of its tape: from the trace of a running engine.
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { startJubakod } from "./peers.ts";

interface OtlpSpan {
  name: string;
  startTimeUnixNano: string;
  endTimeUnixNano: string;
  attributes?: { key: string; value: { stringValue?: string; intValue?: string } }[];
}
interface Otlp {
  resourceSpans: { resource: { attributes: { key: string; value: { stringValue?: string } }[] }; scopeSpans: { spans: OtlpSpan[] }[] }[];
}

export interface ShimTimes {
  /** Milliseconds of the shim's Create and Start together, of each run. */
  createAndStart: number[];
  /** Of the quickest run: the steps that were played, in milliseconds. */
  steps: { text: string; why: string; milliseconds: number }[];
}

const milliseconds = (span: OtlpSpan) => Number(BigInt(span.endTimeUnixNano) - BigInt(span.startTimeUnixNano)) / 1e6;
const attribute = (span: OtlpSpan, key: string) => span.attributes?.find((each) => each.key === key)?.value.stringValue ?? "";

export async function shimTimes(rounds: number): Promise<ShimTimes> {
  const engine = await startJubakod();
  try {
    const program = join(import.meta.dir, "../../dist/bin/jubako");
    const args = ["-H", engine.host, "trace", "--json", "run", "--rm", "--network", "none", "busybox", "true"];
    const times: ShimTimes = { createAndStart: [], steps: [] };
    for (let i = 0; i < rounds + 3; i++) {
      const { status, stdout, stderr } = spawnSync(program, args, { encoding: "utf8", maxBuffer: 64 << 20 });
      if (status !== 0) throw new Error(`jubako trace: ${status} ${stderr}`);
      // Three runs to warm up.
      if (i < 3) continue;
      const of = (layer: string) =>
        (JSON.parse(stdout) as Otlp).resourceSpans
          .filter(({ resource }) => resource.attributes.some(({ value }) => value.stringValue === `jubako-${layer}`))
          .flatMap(({ scopeSpans }) => scopeSpans.flatMap(({ spans }) => spans));
      const both = of("shim").filter(({ name }) => name === "Create" || name === "Start");
      if (both.length !== 2) throw new Error("the trace has no Create and Start of the shim");
      const sum = both.reduce((total, span) => total + milliseconds(span), 0);
      if (times.createAndStart.every((other) => sum < other)) {
        times.steps = of("runtime")
          .filter((span) => attribute(span, "kind") === "tape")
          .map((span) => ({ text: span.name, why: attribute(span, "why"), milliseconds: milliseconds(span) }));
      }
      times.createAndStart.push(sum);
    }
    return times;
  } finally {
    await engine.stop();
  }
}
