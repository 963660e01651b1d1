// Base images made of this machine's own programs, with the libraries that they load, so that builds have real compilers and interpreters without a network.
import { spawnSync } from "node:child_process";
import { existsSync, lstatSync, readdirSync, readlinkSync, realpathSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { sh, which } from "./engine.ts";

export interface HostImage {
  /** What must be on PATH (or a path that must be there); else there is no such image. */
  needs: string[];
  /** Further files and directories. */
  files?: () => string[];
}

/** Directories that are links on merged systems, as this one has them. */
const TOP = ["/bin", "/sbin", "/lib", "/lib64"];

const gccDirectory = () => {
  const version = sh("gcc -dumpversion").stdout.trim();
  return `/usr/lib/gcc/x86_64-linux-gnu/${version}`;
};

const pythonDirectory = () => `/usr/lib/${realpathSync("/usr/bin/python3").split("/").at(-1)}`;
/** The files of the modules that the tests' programs import. */
const PYTHON_MODULES =
  'import os, sys, site, zipfile, zlib, lzma, bz2, codecs, io, abc; print(chr(10).join(m.__file__ for m in list(sys.modules.values()) if hasattr(m, "__file__") and m.__file__))';

export const HOST_IMAGES: Record<string, HostImage> = {
  toolbox: {
    needs: ["perl"],
    files: () =>
      sh(`perl -e 'print join("\\n", grep { -d } @INC)'`)
        .stdout.split("\n")
        .filter((path) => /perl-base$/.test(path)),
  },
  node: { needs: ["/usr/bin/node"] },
  python: {
    needs: ["/usr/bin/python3"],
    files: () => [...sh(`/usr/bin/python3 -c '${PYTHON_MODULES}'`).stdout.split("\n").filter(Boolean), `${pythonDirectory()}/encodings`],
  },
  gcc: {
    needs: ["gcc", "as", "ld", "ar", "strip", "make", "/usr/lib/x86_64-linux-gnu/libc.a"],
    files: () => {
      const own = gccDirectory();
      const objects = (dir: string, pattern: RegExp) =>
        readdirSync(dir)
          .filter((name) => pattern.test(name))
          .map((name) => join(dir, name));
      return [
        ...["cc1", "collect2", "include", "liblto_plugin.so"].map((name) => join(own, name)),
        ...objects(own, /^(crt.*\.o|libgcc.*|libgcc_s\.so)$/),
        ...objects(
          "/usr/lib/x86_64-linux-gnu",
          /^(crt1|crti|crtn|gcrt1|Scrt1|rcrt1)\.o$|^libc\.(a|so)$|^libc_nonshared\.a$|^libm\.(a|so)$|^libmvec\.a$|^libm-.*\.a$/,
        ),
        // what these headers include is all that the tests' programs need
        ...sh("printf '#include <stdio.h>\\n#include <stdlib.h>\\n' | gcc -O2 -E -M -")
          .stdout.split(/[\\\s]+/)
          .filter((path) => path.startsWith("/usr/include")),
        "/usr/lib/x86_64-linux-gnu/libgcc_s.so.1",
      ].filter(existsSync);
    },
  },
};

function closure(paths: readonly string[]): Set<string> {
  const found = new Set<string>();
  const add = (path: string) => {
    // The directory is the real one: the links of merged systems are in the image as such.
    const place = existsSync(dirname(path)) ? join(realpathSync(dirname(path)), path.split("/").at(-1)!) : path;
    if (found.has(place) || !lstatSync(place, { throwIfNoEntry: false })) return;
    found.add(place);
    const stat = lstatSync(place);
    if (stat.isSymbolicLink()) add(resolve(dirname(place), readlinkSync(place)));
    else if (stat.isDirectory()) {
      // tar takes what is in it
    } else for (const [path] of sh(`ldd ${place} 2>/dev/null`).stdout.matchAll(/\/\S+(?= \(0x)/g)) add(path);
  };
  for (const path of paths) add(path);
  return found;
}

/** A tar of the image's files, with busybox for all that is missing; undefined (and a word why) where the machine has not got what it needs. */
export function hostImage(name: string): Buffer | undefined {
  const { needs, files } = HOST_IMAGES[name]!;
  // busybox' own shell would rather be the tools than call them
  const programs = [...needs, "/usr/bin/sh"].map((need) => (need.startsWith("/") ? (existsSync(need) ? need : undefined) : which(need)));
  const missing = needs.filter((_, i) => programs[i] === undefined);
  if (missing.length > 0) {
    console.log(`skip: images of the kind ${name} need ${missing.join(", ")}`);
    return undefined;
  }
  const paths = [
    ...closure([...(programs as string[]), ...(files?.() ?? [])]),
    ...TOP.filter((path) => lstatSync(path, { throwIfNoEntry: false })?.isSymbolicLink()),
  ];
  const script = `set -e
dir=$(mktemp -d /tmp/jubako-image-XXXXXX)
trap 'rm -rf "$dir"' EXIT
mkdir "$dir/root"
tar -C / -cf - --no-recursion -T "$LIST" | tar -C "$dir/root" -xf -
tar -C / -cf - -T "$DIRS" 2>/dev/null | tar -C "$dir/root" -xf -
mkdir -p "$dir/root/usr/bin" "$dir/root/etc" "$dir/root/tmp" "$dir/root/root" "$dir/root/var"
chmod 1777 "$dir/root/tmp"
cp "$(command -v busybox)" "$dir/root/usr/bin/busybox"
for name in $(busybox --list); do
  [ -e "$dir/root/usr/bin/$name" ] || [ -L "$dir/root/usr/bin/$name" ] || ln -s busybox "$dir/root/usr/bin/$name"
done
echo root:x:0:0:root:/root:/bin/sh > "$dir/root/etc/passwd"
echo nobody:x:65534:65534:nobody:/nonexistent:/bin/false >> "$dir/root/etc/passwd"
echo root:x:0: > "$dir/root/etc/group"
tar -C "$dir/root" --sort=name --mtime=@0 --owner=0 --group=0 -cf - .`;
  const lists = sh("mktemp -d /tmp/jubako-lists-XXXXXX").stdout.trim();
  try {
    const relative = (list: string[]) => `${list.map((path) => path.slice(1)).join("\n")}\n`;
    const isDirectory = (path: string) => lstatSync(path).isDirectory();
    writeFileSync(join(lists, "list"), relative(paths.filter((path) => !isDirectory(path))));
    writeFileSync(join(lists, "dirs"), relative(paths.filter(isDirectory)));
    const made = spawnSync("/bin/sh", ["-c", script], {
      maxBuffer: 1 << 30,
      env: { ...process.env, LIST: join(lists, "list"), DIRS: join(lists, "dirs") },
    });
    if (made.status !== 0) throw new Error(`image ${name}: ${made.stderr}`);
    return made.stdout;
  } finally {
    sh(`rm -rf ${lists}`);
  }
}
