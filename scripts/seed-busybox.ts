// Makes the image `busybox:latest` from this machine's /bin/busybox (Debian's busybox-static) and writes it to stdout as an archive for `docker load`.
// Used where Docker Hub can't be reached. The same busybox gives the same image.
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync, writeSync } from "node:fs";
import { busyboxArchive } from "../src/engine/images/seed.ts";
import { hostPlatform } from "../src/oci/index.ts";

const path = process.argv[2] ?? ["/bin/busybox", "/usr/bin/busybox"].find(existsSync);
if (!path || !existsSync(path)) {
  console.error("seed-busybox: no busybox here; install busybox-static");
  process.exit(1);
}
const binary = readFileSync(path);
const listed = spawnSync(path, ["--list"], { encoding: "utf8" });
if (listed.status !== 0) {
  console.error(`seed-busybox: ${path} --list failed: ${listed.error?.message ?? listed.stderr}`);
  process.exit(1);
}
const archive = busyboxArchive(binary, listed.stdout.split("\n").filter(Boolean), hostPlatform());
for (let at = 0; at < archive.length; ) at += writeSync(1, archive, at);
