// This machine's systemd as the first process of a virtual one, with a message bus, and with a manager for the user 1000, so small that it starts in
// seconds: no login, no devices, no journal.
import { existsSync } from "node:fs";
import { which } from "../support/engine.ts";
import type { Entry } from "./initramfs.ts";

const MANAGER = "/lib/systemd/systemd";

/** Why there is none, if so. */
export function systemdLacks(): boolean {
  const missing = [...(existsSync(MANAGER) ? [] : ["systemd"]), ...["systemctl", "dbus-daemon", "setpriv"].filter((name) => !which(name))];
  if (missing.length) console.log(`skip: ${missing.join(", ")} not installed`);
  return missing.length > 0;
}

export const systemdPrograms = [MANAGER, "/bin/systemctl", "/usr/bin/dbus-daemon", "/usr/bin/setpriv"];

const unit = (text: string): Entry => ({ data: `${text.trim()}\n` });

export const systemdFiles: Record<string, Entry> = {
  "etc/machine-id": { data: "0123456789abcdef0123456789abcdef\n" },
  "etc/passwd": { data: "root:x:0:0:root:/root:/bin/sh\nmessagebus:x:100:100::/:/bin/sh\nuser:x:1000:1000::/tmp:/bin/sh\n" },
  "etc/group": { data: "root:x:0:\nmessagebus:x:100:\nuser:x:1000:\n" },
  "etc/nsswitch.conf": { data: "passwd: files\ngroup: files\n" },
  "etc/dbus.conf": {
    data: `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>unix:path=/run/dbus/system_bus_socket</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_type="method_call"/><allow send_type="signal"/>
<allow send_requested_reply="true"/><allow receive_type="method_call"/><allow receive_type="signal"/><allow receive_requested_reply="true"/></policy>
</busconfig>`,
  },
  "etc/systemd/system.conf": { data: "[Manager]\nDefaultStandardOutput=null\nShowStatus=no\nLogLevel=err\n" },
  "etc/systemd/user.conf": { data: "[Manager]\nDefaultStandardOutput=null\n" },
  "etc/systemd/system/dbus.socket": unit("[Unit]\nDefaultDependencies=no\n[Socket]\nListenStream=/run/dbus/system_bus_socket"),
  "etc/systemd/system/dbus.service": unit(`
[Unit]
DefaultDependencies=no
Requires=dbus.socket
[Service]
Type=notify
StandardOutput=null
ExecStart=/usr/bin/dbus-daemon --config-file=/etc/dbus.conf --address=systemd: --nofork --nopidfile --systemd-activation`),
  // As Debian's user@.service, but for the login.
  "etc/systemd/system/manager.service": unit(`
[Unit]
DefaultDependencies=no
After=dbus.service
[Service]
User=1000
StandardOutput=null
Slice=user-1000.slice
Type=notify
Delegate=pids memory cpu
KillMode=mixed
Environment=XDG_RUNTIME_DIR=/run/user/1000 HOME=/tmp
ExecStartPre=+/bin/mkdir -p /run/user/1000
ExecStartPre=+/bin/chown 1000:1000 /run/user/1000
ExecStart=/lib/systemd/systemd --user`),
  "etc/systemd/user/default.target": unit("[Unit]\nDefaultDependencies=no"),
  "etc/systemd/system/script.service": unit(`
[Unit]
DefaultDependencies=no
Requires=dbus.service
Wants=manager.service
After=dbus.service manager.service
[Service]
Type=oneshot
Delegate=yes
StandardOutput=tty
StandardError=tty
TTYPath=/dev/console
Environment=PATH=/jubako/bin:/bin HOME=/root SYSTEMD_COLORS=0
ExecStart=/bin/sh /script.systemd`),
  "etc/systemd/system/default.target": unit("[Unit]\nDefaultDependencies=no\nRequires=script.service"),
};
