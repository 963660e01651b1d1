import { command, exactly } from "../command.ts";
import { registryAuth } from "../credentials.ts";
import { bool, filter, int, string } from "../flags.ts";
import { formatList, type ListFormat } from "../formatter.ts";
import { ellipsis } from "../units.ts";

interface Result {
  name?: string;
  description?: string;
  star_count?: number;
  is_official?: boolean;
}

export default command({
  use: "[OPTIONS] TERM",
  short: "Search Docker Hub for images",
  args: exactly(1),
  flags: {
    filter: filter("Filter output based on conditions provided"),
    format: string("", "Pretty-print search using a Go template"),
    limit: int("", "Max number of search results"),
    "no-trunc": bool("", "Don't truncate output"),
  },
  async run(cli, flags, args) {
    const client = await cli.client();
    const slash = args[0]!.indexOf("/");
    const domain = slash > 0 && /[.:]/.test(args[0]!.slice(0, slash)) ? args[0]!.slice(0, slash) : "docker.io";
    const results = (await client.images.search(
      { term: args[0]!, limit: flags.limit || undefined, filters: flags.filter },
      await registryAuth(cli.config, domain),
    )) as Result[];
    results.sort((a, b) => (b.star_count ?? 0) - (a.star_count ?? 0));
    cli.out(formatList(searchList(!flags["no-trunc"]), results, { format: flags.format }));
  },
});

function searchList(truncate: boolean): ListFormat<Result> {
  return {
    type: "*formatter.searchContext",
    table: "{{.Name}}\t{{.Description}}\t{{.StarCount}}\t{{.IsOfficial}}",
    columns: {
      Name: { header: "NAME", value: (r) => r.name },
      Description: {
        header: "DESCRIPTION",
        value: (r) => {
          const text = (r.description ?? "").replace(/[\r\n]/g, " ");
          return truncate ? ellipsis(text, 45) : text;
        },
      },
      StarCount: { header: "STARS", value: (r) => String(r.star_count ?? 0) },
      IsOfficial: { header: "OFFICIAL", value: (r) => (r.is_official ? "[OK]" : "") },
    },
  };
}
