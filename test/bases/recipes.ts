// The base images of the Dockerfiles in test/dockerfiles/projects: Debian by debootstrap, and languages on top of it as Debian packages them, each a
// layer, with the names and settings that the images of Docker Hub have. What no test needs is left out, as everything here is pulled by two engines.

export interface Recipe {
  /** The image below; only Debian itself has none. */
  on?: string;
  packages?: string[];
  /** Shell lines after the packages are there, in the root directory; `inside` runs a command in it. $CACHE has what the host brings, $HOST_* paths. */
  script?: string;
  config?: ImageSettings;
}

/** Fields of an image's config, as the image spec writes them. */
export interface ImageSettings {
  Env?: string[];
  Cmd?: string[];
  Entrypoint?: string[];
  WorkingDir?: string;
  StopSignal?: string;
  ExposedPorts?: Record<string, object>;
  Labels?: Record<string, string>;
}

const PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const path = (...first: string[]) => `PATH=${[...first, PATH].join(":")}`;

/** By name and tag. */
export const RECIPES: Record<string, Recipe> = {
  "debian:bookworm-slim": {
    // as debuerreotype's slim variant: no manuals, no translations, nothing in /dev, and apt set for images
    script: `
find usr/share/doc -mindepth 1 ! -name copyright ! -type d -delete; find usr/share/doc -mindepth 1 -type d -empty -delete
rm -rf usr/share/man/* usr/share/locale/* usr/share/info/* usr/share/groff usr/share/lintian usr/share/linda
rm -rf var/cache/apt/*.bin var/cache/ldconfig/aux-cache var/lib/apt/lists/* var/log/*.log var/log/apt/* dev/* run/* tmp/*
rm -f var/cache/apt/archives/*.deb etc/hostname; : > etc/resolv.conf
cat > etc/dpkg/dpkg.cfg.d/docker <<'END'
force-unsafe-io
path-exclude /usr/share/doc/*
path-include /usr/share/doc/*/copyright
path-exclude /usr/share/man/*
path-exclude /usr/share/locale/*
path-exclude /usr/share/info/*
path-exclude /usr/share/lintian/*
END
cat > etc/apt/apt.conf.d/docker-clean <<'END'
DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb /var/cache/apt/archives/partial/*.deb /var/cache/apt/*.bin || true"; };
APT::Update::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb /var/cache/apt/archives/partial/*.deb /var/cache/apt/*.bin || true"; };
Dir::Cache::pkgcache ""; Dir::Cache::srcpkgcache "";
END
echo 'Acquire::Languages "none";' > etc/apt/apt.conf.d/docker-no-languages
printf '#!/bin/sh\\nexit 101\\n' > usr/sbin/policy-rc.d; chmod 755 usr/sbin/policy-rc.d`,
    config: { Env: [path()], Cmd: ["bash"] },
  },
  "gcc:12": {
    on: "debian:bookworm-slim",
    packages: ["gcc", "libc6-dev", "make"],
    // no link-time optimization, no sanitizers
    script: `rm -rf usr/lib/gcc/x86_64-linux-gnu/12/lto* usr/bin/*lto-dump* usr/lib/x86_64-linux-gnu/lib[alt]san.* usr/lib/x86_64-linux-gnu/libubsan.*
rm -f usr/lib/gcc/x86_64-linux-gnu/12/lib[alth]*san* usr/lib/gcc/x86_64-linux-gnu/12/libubsan* usr/lib/x86_64-linux-gnu/gconv/IBM*`,
    config: { Env: [path(), "GCC_VERSION=12.2.0"], Cmd: ["bash"] },
  },
  "node:18": {
    on: "debian:bookworm-slim",
    packages: ["nodejs"],
    script: `
mkdir -p usr/local/lib/node_modules
tar -xzf "$CACHE/npm.tgz" -C usr/local/lib/node_modules && mv usr/local/lib/node_modules/package usr/local/lib/node_modules/npm
rm -rf usr/local/lib/node_modules/npm/docs usr/local/lib/node_modules/npm/man
ln -s ../lib/node_modules/npm/bin/npm-cli.js usr/local/bin/npm; ln -s ../lib/node_modules/npm/bin/npx-cli.js usr/local/bin/npx
chmod 755 usr/local/lib/node_modules/npm/bin/*-cli.js
inside groupadd --gid 1000 node; inside useradd --uid 1000 --gid node --shell /bin/bash --create-home node
cat > usr/local/bin/docker-entrypoint.sh <<'END'
#!/bin/sh
set -e
# What is no command is for node.
if [ "\${1#-}" != "\${1}" ] || [ -z "$(command -v "\${1}")" ]; then set -- node "$@"; fi
exec "$@"
END
chmod 755 usr/local/bin/docker-entrypoint.sh`,
    config: { Env: [path(), "NODE_VERSION=18"], Entrypoint: ["docker-entrypoint.sh"], Cmd: ["node"] },
  },
  "bun:1": {
    on: "debian:bookworm-slim",
    script: `install -m 755 "$HOST_BUN" usr/local/bin/bun; ln -s bun usr/local/bin/bunx
inside groupadd --gid 1000 bun; inside useradd --uid 1000 --gid bun --create-home bun; mkdir -p home/bun/app`,
    config: { Env: [path(), "BUN_INSTALL_BIN=/usr/local/bin"], Cmd: ["bun"], WorkingDir: "/home/bun/app" },
  },
  "python:3.11": {
    on: "debian:bookworm-slim",
    packages: ["python3", "python3-pip", "python3-wheel", "python3-setuptools"],
    script: `rm -f usr/lib/python3*/EXTERNALLY-MANAGED; ln -s python3 usr/bin/python; find usr -name __pycache__ -prune -exec rm -rf {} +`,
    config: { Env: [path(), "LANG=C.UTF-8", "PYTHON_VERSION=3.11"], Cmd: ["python3"] },
  },
  "golang:1.19": {
    on: "debian:bookworm-slim",
    packages: ["golang-go"],
    script: `
find usr/share/go-1.19 -name '*_test.go' -delete; find usr/share/go-1.19 -name testdata -prune -exec rm -rf {} +
rm -rf usr/share/go-1.19/src/cmd usr/share/go-1.19/test usr/share/go-1.19/api usr/lib/go-1.19/pkg/linux_amd64/cmd
find usr/lib/go-1.19/pkg/tool -type f ! -name compile ! -name asm ! -name link ! -name buildid ! -name vet -delete
rm -rf usr/share/go-1.19/src/crypto/internal/boring/syso usr/lib/go-1.19/bin/gofmt usr/bin/gofmt
mkdir -p go/src go/bin; chmod 1777 go go/src go/bin`,
    config: { Env: [path("/go/bin"), "GOLANG_VERSION=1.19.8", "GOPATH=/go", "GOTOOLCHAIN=local"], WorkingDir: "/go", Cmd: ["bash"] },
  },
  "nginx:1.22": {
    on: "debian:bookworm-slim",
    packages: ["nginx-light", "gettext-base"],
    script: `
ln -sf /dev/stdout var/log/nginx/access.log; ln -sf /dev/stderr var/log/nginx/error.log
rm -f etc/nginx/sites-enabled/default; mkdir docker-entrypoint.d
cat > docker-entrypoint.sh <<'END'
#!/bin/sh
set -e
for file in /docker-entrypoint.d/*.sh; do [ ! -x "$file" ] || "$file"; done
for file in /etc/nginx/templates/*.template; do
  [ ! -f "$file" ] || envsubst "$(env | sed 's/=.*//; s/^/$/')" < "$file" > "/etc/nginx/conf.d/$(basename "$file" .template)"
done
exec "$@"
END
chmod 755 docker-entrypoint.sh`,
    config: {
      Env: [path(), "NGINX_VERSION=1.22.1"],
      Entrypoint: ["/docker-entrypoint.sh"],
      Cmd: ["nginx", "-g", "daemon off;"],
      ExposedPorts: { "80/tcp": {} },
      StopSignal: "SIGQUIT",
    },
  },
  "openjdk:17-jre": {
    on: "debian:bookworm-slim",
    packages: ["openjdk-17-jre-headless"],
    script: `rm -rf usr/lib/jvm/*/man usr/lib/jvm/*/lib/server/classes*.jsa`,
    config: { Env: [path(), "JAVA_HOME=/usr/lib/jvm/java-17-openjdk-amd64"], Cmd: ["bash"] },
  },
  "openjdk:17": {
    on: "openjdk:17-jre",
    packages: ["openjdk-17-jdk-headless"],
    script: `rm -rf usr/lib/jvm/*/jmods usr/lib/jvm/*/lib/src.zip`,
    config: { Env: [path(), "JAVA_HOME=/usr/lib/jvm/java-17-openjdk-amd64"], Cmd: ["jshell"] },
  },
  "ruby:3.1": {
    on: "debian:bookworm-slim",
    packages: ["ruby"],
    script: `mkdir -p usr/local/bundle; chmod 1777 usr/local/bundle`,
    config: {
      Env: [path("/usr/local/bundle/bin"), "LANG=C.UTF-8", "RUBY_VERSION=3.1", "GEM_HOME=/usr/local/bundle"],
      Cmd: ["irb"],
    },
  },
  "php:8.2-cli": {
    on: "debian:bookworm-slim",
    packages: ["php8.2-cli"],
    script: `
cat > usr/local/bin/docker-php-entrypoint <<'END'
#!/bin/sh
set -e
if [ "\${1#-}" != "$1" ]; then set -- php "$@"; fi
exec "$@"
END
chmod 755 usr/local/bin/docker-php-entrypoint`,
    config: {
      Env: [path(), "PHP_VERSION=8.2", "PHP_INI_DIR=/etc/php/8.2/cli"],
      Entrypoint: ["docker-php-entrypoint"],
      Cmd: ["php", "-a"],
    },
  },
  "perl:5.36": {
    on: "debian:bookworm-slim",
    packages: ["perl", "make"],
    config: { Env: [path(), "PERL_VERSION=5.36.0"], Cmd: ["perl5.36.0", "-de0"] },
  },
  "rust:1.63": {
    on: "gcc:12",
    packages: ["rustc", "cargo"],
    script: `rm -f usr/bin/rustdoc; rm -rf usr/share/cargo usr/src/*`,
    config: { Env: [path("/usr/local/cargo/bin"), "CARGO_HOME=/usr/local/cargo", "RUST_VERSION=1.63.0"], Cmd: ["bash"] },
  },
};

/** Packages that Dockerfiles install themselves, with what they need: an apt repository of a directory. */
export const REPOSITORY = ["hello", "tree", "libcap2-bin", "sqlite3", "redis-server", "tini"];
