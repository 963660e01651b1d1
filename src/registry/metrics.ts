// Figures in Prometheus' text format (https://prometheus.io/docs/instrumenting/exposition_formats/).

export interface Metrics {
  /** One answered request. */
  observe(route: string, method: string, status: number, seconds: number): void;
  count(name: string, help: string, by?: number, labels?: Record<string, string>): void;
  /** A value that is asked for when the page is. */
  gauge(name: string, help: string, value: () => number | [labels: Record<string, string>, value: number][]): void;
  text(): string;
}

const BUCKETS = [0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10, 60];
const REQUESTS = "jubako_registry_http_requests_total";
const SECONDS = "jubako_registry_http_request_duration_seconds";

const labelled = (labels: Record<string, string>): string => {
  const pairs = Object.entries(labels).map(
    ([name, value]) => `${name}="${value.replace(/[\\"\n]/g, (c) => (c === "\n" ? "\\n" : `\\${c}`))}"`,
  );
  return pairs.length ? `{${pairs.join(",")}}` : "";
};

export function createMetrics(): Metrics {
  const requests = new Map<string, number>();
  const durations = new Map<string, { buckets: number[]; sum: number; count: number }>();
  const counters = new Map<string, { help: string; values: Map<string, number> }>();
  const gauges: [string, string, () => number | [Record<string, string>, number][]][] = [];
  return {
    observe(route, method, status, seconds) {
      const key = `{route="${route}",method="${method}",code="${status}"}`;
      requests.set(key, (requests.get(key) ?? 0) + 1);
      let duration = durations.get(route);
      if (!duration) {
        duration = { buckets: BUCKETS.map(() => 0), sum: 0, count: 0 };
        durations.set(route, duration);
      }
      duration.sum += seconds;
      duration.count++;
      for (let i = BUCKETS.length - 1; i >= 0 && seconds <= BUCKETS[i]!; i--) duration.buckets[i]!++;
    },
    count(name, help, by = 1, labels = {}) {
      let counter = counters.get(name);
      if (!counter) {
        counter = { help, values: new Map() };
        counters.set(name, counter);
      }
      const key = labelled(labels);
      counter.values.set(key, (counter.values.get(key) ?? 0) + by);
    },
    gauge: (name, help, value) => void gauges.push([name, help, value]),
    text() {
      const lines: string[] = [];
      const head = (name: string, help: string, type: string) => lines.push(`# HELP ${name} ${help}`, `# TYPE ${name} ${type}`);
      head(REQUESTS, "Answered requests.", "counter");
      for (const [key, value] of requests) lines.push(`${REQUESTS}${key} ${value}`);
      head(SECONDS, "Time from a request's head to the end of its answer.", "histogram");
      for (const [route, { buckets, sum, count }] of durations) {
        for (const [i, le] of BUCKETS.entries()) lines.push(`${SECONDS}_bucket{route="${route}",le="${le}"} ${buckets[i]}`);
        lines.push(`${SECONDS}_bucket{route="${route}",le="+Inf"} ${count}`, `${SECONDS}_sum{route="${route}"} ${sum}`);
        lines.push(`${SECONDS}_count{route="${route}"} ${count}`);
      }
      for (const [name, { help, values }] of counters) {
        head(name, help, "counter");
        for (const [key, value] of values) lines.push(`${name}${key} ${value}`);
      }
      for (const [name, help, value] of gauges) {
        head(name, help, "gauge");
        const now = value();
        if (typeof now === "number") lines.push(`${name} ${now}`);
        else for (const [labels, one] of now) lines.push(`${name}${labelled(labels)} ${one}`);
      }
      return `${lines.join("\n")}\n`;
    },
  };
}
