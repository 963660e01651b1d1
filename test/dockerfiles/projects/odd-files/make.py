import os
import stat

for name in ("links", "names", "devices", "sparse", "attributes", "empty/a/b", "going/away"):
    os.makedirs(name)


def write(path, data=b"x"):
    with open(path, "wb") as file:
        file.write(data)


write("links/a", b"a" * 5000)
for name in ("b", "c"):
    os.link("links/a", "links/" + name)
os.symlink("a", "links/relative")
os.symlink("/odd/links/a", "links/absolute")
os.symlink("nowhere/" + "n" * 150, "links/dangling")
write("names/" + "l" * 255)
os.makedirs("names/" + "d" * 120 + "/" + "e" * 120)
write("names/" + "d" * 120 + "/" + "e" * 120 + "/deep")
write("names/sp ace\n\t'\"\\")
write("names/ünï-☃")
os.mkfifo("devices/fifo", 0o640)
os.mknod("devices/null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
os.mknod("devices/loop", 0o660 | stat.S_IFBLK, os.makedev(7, 300))
with open("sparse/file", "wb") as file:
    file.seek(3 << 20)
    file.write(b"end")
write("attributes/big-owner")
os.chown("attributes/big-owner", 3_000_000, 4_000_000)
write("attributes/set-id")
os.chmod("attributes/set-id", 0o6711)
os.chmod("attributes", 0o3750)
write("going/away/file")
write("going/changed", b"before")
for number in range(50):
    write(f"going/many-{number}", str(number).encode())
for path, _, names in os.walk(".", topdown=False):
    for name in names + ["."]:
        os.utime(os.path.join(path, name), ns=(10**18 + 123456789, 10**18 + 123456789), follow_symlinks=False)
