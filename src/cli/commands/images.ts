import type { ImageSummary } from "../../api/types.ts";
import { atMost, command } from "../command.ts";
import { bool, filter, hidden, string } from "../flags.ts";
import { chooseFormat, formatList, type ListFormat } from "../formatter.ts";
import { ago, goTime, humanSize, shortId } from "../units.ts";
import { FORMAT_HELP } from "./ps.ts";

/** The zero of Go's time.Time, in seconds: an image that does not say when it was made. */
const NEVER = -62135596800;

export default command({
  use: "[OPTIONS] [REPOSITORY[:TAG]]",
  short: "List images",
  args: atMost(1),
  flags: {
    all: bool("a", "Show all images (default hides intermediate images)"),
    digests: bool("", "Show digests"),
    filter: filter("Filter output based on conditions provided"),
    format: string("", FORMAT_HELP()),
    "no-trunc": bool("", "Don't truncate output"),
    quiet: bool("q", "Only show image IDs"),
    tree: hidden(bool("", "List multi-platform images as a tree")),
  },
  async run(cli, flags, args) {
    const client = await cli.client();
    const filters = args[0] ? { ...flags.filter, reference: [...(flags.filter.reference ?? []), args[0]] } : flags.filter;
    const format = flags.format || (flags.quiet ? "" : (cli.config.imagesFormat ?? ""));
    const images = await client.images.list({ all: flags.all, filters });
    const list = imageList(!flags["no-trunc"], flags.digests);
    const withDigests = flags.digests || /\.Digest\b/.test(chooseFormat(list, { format }).template);
    cli.out(formatList(list, imageRows(images, withDigests), { format, quiet: flags.quiet }));
  },
});

export interface ImageRow {
  image: ImageSummary;
  repository: string;
  tag: string;
  digest: string;
}

/** A row for each name of each image; an image without any is <none>. */
export function imageRows(images: readonly ImageSummary[], withDigests: boolean): ImageRow[] {
  const rows: ImageRow[] = [];
  for (const image of images) {
    const none = (names: string[] | undefined, mark: string) => !names || names.length === 0 || (names.length === 1 && names[0] === mark);
    const dangling = none(image.RepoTags, "<none>:<none>") && none(image.RepoDigests, "<none>@<none>");
    if (dangling) {
      rows.push({ image, repository: "<none>", tag: "<none>", digest: "<none>" });
      continue;
    }
    const tags = new Map<string, string[]>();
    const digests = new Map<string, string[]>();
    const add = (map: Map<string, string[]>, key: string, value: string) => void map.set(key, [...(map.get(key) ?? []), value]);
    for (const name of image.RepoTags ?? []) {
      const at = name.lastIndexOf(":");
      if (at > 0) add(tags, name.slice(0, at), name.slice(at + 1));
    }
    for (const name of image.RepoDigests ?? []) {
      const at = name.indexOf("@");
      if (at > 0) add(digests, name.slice(0, at), name.slice(at + 1));
    }
    for (const [repository, list] of tags) {
      const own = digests.get(repository) ?? [];
      digests.delete(repository);
      for (const tag of list) {
        if (withDigests && own.length > 0) for (const digest of own) rows.push({ image, repository, tag, digest });
        else rows.push({ image, repository, tag, digest: "<none>" });
      }
    }
    for (const [repository, list] of digests) {
      if (withDigests) for (const digest of list) rows.push({ image, repository, tag: "<none>", digest });
      else rows.push({ image, repository, tag: "<none>", digest: "<none>" });
    }
  }
  return rows;
}

export function imageList(truncate: boolean, digests: boolean): ListFormat<ImageRow> {
  const known = (n: number | undefined) => (n === undefined || n === -1 ? "N/A" : undefined);
  return {
    type: "*formatter.imageContext",
    table: `{{.Repository}}\t{{.Tag}}\t${digests ? "{{.Digest}}\t" : ""}{{.ID}}\t{{if .CreatedSince }}{{.CreatedSince}}{{else}}N/A{{end}}\t{{.Size}}`,
    quiet: "{{.ID}}",
    raw: `repository: {{ .Repository }}\n{{if .Tag}}tag: {{.Tag}}\n{{end}}${digests ? "{{if .Digest}}digest: {{.Digest}}\n{{end}}" : ""}image_id: {{.ID}}\ncreated_at: {{.CreatedAt}}\nvirtual_size: {{.Size}}\n`,
    columns: {
      ID: { header: "IMAGE ID", value: ({ image }) => (truncate ? shortId(image.Id) : image.Id) },
      Repository: { header: "REPOSITORY", value: (row) => row.repository },
      Tag: { header: "TAG", value: (row) => row.tag },
      Digest: { header: "DIGEST", value: (row) => row.digest },
      CreatedSince: { header: "CREATED", value: ({ image }) => (image.Created === NEVER ? "" : ago(image.Created)) },
      CreatedAt: { header: "CREATED AT", value: ({ image }) => goTime(image.Created) },
      Size: { header: "SIZE", value: ({ image }) => humanSize(image.Size, 3) },
      Containers: { header: "CONTAINERS", value: ({ image }) => known(image.Containers) ?? String(image.Containers) },
      VirtualSize: { header: "SIZE", value: ({ image }) => humanSize(image.Size) },
      SharedSize: { header: "SHARED SIZE", value: ({ image }) => known(image.SharedSize) ?? humanSize(image.SharedSize) },
      UniqueSize: { header: "UNIQUE SIZE", value: ({ image }) => known(image.SharedSize) ?? humanSize(image.Size - image.SharedSize) },
    },
  };
}
