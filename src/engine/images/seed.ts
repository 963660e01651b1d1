// A first image without a registry: busybox with a link for each applet, as Docker Hub's has, in an archive for `docker load`.
import { digestOf, hexOf, type Platform, type TarHeader, tarEntry, tarOf } from "../../oci/index.ts";

const PASSWD = `root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
bin:x:2:2:bin:/bin:/bin/false
sys:x:3:3:sys:/dev:/bin/false
sync:x:4:100:sync:/bin:/bin/sync
mail:x:8:8:mail:/var/spool/mail:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
operator:x:37:37:Operator:/var:/bin/false
nobody:x:65534:65534:nobody:/home:/bin/false
`;
const GROUP = `root:x:0:
daemon:x:1:
bin:x:2:
sys:x:3:
adm:x:4:
tty:x:5:
disk:x:6:
mail:x:8:
wheel:x:10:root
audio:x:29:
video:x:44:
users:x:100:
nogroup:x:65534:
`;
const SHADOW = "root:*::0:::::\ndaemon:*::0:::::\nnobody:*::0:::::\n";

interface File {
  header: TarHeader;
  data?: Uint8Array;
}

function layer(binary: Uint8Array, applets: readonly string[]): Buffer {
  const files: File[] = [];
  const directory = (name: string, mode = 0o755, owner = 0) =>
    files.push({ header: tarEntry(`${name}/`, "directory", { mode, uid: owner, gid: owner }) });
  const file = (name: string, text: string, mode = 0o644) =>
    files.push({ header: tarEntry(name, "file", { mode }), data: Buffer.from(text) });
  directory("bin");
  files.push({ header: tarEntry("bin/busybox", "file", { mode: 0o755 }), data: binary });
  // `busybox --list` names busybox itself: a link of that name would replace the program by a link to itself.
  for (const applet of [...new Set(applets)].sort())
    if (/^[\w[.+-]+$/.test(applet) && applet !== "busybox")
      files.push({ header: tarEntry(`bin/${applet}`, "link", { linkname: "bin/busybox", mode: 0o755 }) });
  directory("dev");
  directory("etc");
  file("etc/group", GROUP);
  file("etc/passwd", PASSWD);
  file("etc/shadow", SHADOW, 0o600);
  directory("home", 0o755, 65534);
  directory("root", 0o700);
  directory("tmp", 0o1777);
  directory("usr");
  directory("usr/sbin");
  directory("var");
  directory("var/spool");
  directory("var/spool/mail", 0o755, 8);
  directory("var/www", 0o755, 33);
  files.push({ header: tarEntry("usr/bin", "symlink", { linkname: "../bin" }) });
  files.push({ header: tarEntry("sbin", "symlink", { linkname: "bin" }) });
  return tarOf(files);
}

/** An archive with the image busybox:latest. Deterministic. */
export function busyboxArchive(binary: Uint8Array, applets: readonly string[], platform: Platform): Buffer {
  const tar = layer(binary, applets);
  const diffId = digestOf(tar);
  const created = "1970-01-01T00:00:00Z";
  const config = Buffer.from(
    JSON.stringify({
      architecture: platform.architecture,
      ...(platform.variant ? { variant: platform.variant } : {}),
      os: platform.os,
      config: { Env: ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], Cmd: ["sh"], Labels: null },
      created,
      history: [{ created, created_by: "jubako: busybox from the host" }],
      rootfs: { type: "layers", diff_ids: [diffId] },
    }),
  );
  const id = digestOf(config);
  const blob = (digest: string) => `blobs/sha256/${hexOf(digest)}`;
  const manifest = [{ Config: blob(id), RepoTags: ["busybox:latest"], Layers: [blob(diffId)] }];
  return tarOf([
    { header: tarEntry("blobs/", "directory") },
    { header: tarEntry("blobs/sha256/", "directory") },
    { header: tarEntry(blob(diffId), "file"), data: tar },
    { header: tarEntry(blob(id), "file"), data: config },
    { header: tarEntry("manifest.json", "file"), data: Buffer.from(JSON.stringify(manifest)) },
  ]);
}
