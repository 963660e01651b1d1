import { command, none } from "../../command.ts";
import { bool } from "../../flags.ts";
import { humanSize } from "../../units.ts";

interface CacheRecord {
  ID: string;
  Type: string;
  Description: string;
  Size: number;
  InUse: boolean;
  Shared: boolean;
  LastUsedAt?: string;
}

export default command({
  use: "[OPTIONS]",
  short: "Disk usage of the build cache",
  args: none,
  flags: { verbose: bool("", "Show what each record is for") },
  async run(cli, flags) {
    const { BuildCache } = await (await cli.client()).system.df(["build-cache"]);
    const records = (BuildCache ?? []) as unknown as CacheRecord[];
    const rows = [
      ["ID", "RECLAIMABLE", "SIZE", "LAST ACCESSED", ...(flags.verbose ? ["DESCRIPTION"] : [])],
      ...records.map(({ ID, InUse, Shared, Size, LastUsedAt, Description }) => [
        `${ID}${InUse ? "*" : ""}`,
        String(!InUse),
        `${humanSize(Size)}${Shared ? "*" : ""}`,
        LastUsedAt ? LastUsedAt.slice(0, 19).replace("T", " ") : "",
        ...(flags.verbose ? [Description.replaceAll("\n", " ")] : []),
      ]),
    ];
    const widths = rows[0]!.map((_, i) => Math.max(...rows.map((row) => row[i]!.length)));
    for (const row of rows)
      cli.out(
        `${row
          .map((cell, i) => cell.padEnd(widths[i]! + 3))
          .join("")
          .trimEnd()}\n`,
      );
    const sum = (list: CacheRecord[]) => humanSize(list.reduce((total, { Size }) => total + Size, 0));
    cli.out(`Shared:\t\t${sum(records.filter(({ Shared }) => Shared))}\n`);
    cli.out(`Reclaimable:\t${sum(records.filter(({ InUse }) => !InUse))}\n`);
    cli.out(`Total:\t\t${sum(records)}\n`);
  },
});
