import os

def told(path):
    stat = os.lstat(path)
    return f"{oct(stat.st_mode)} {stat.st_nlink} {stat.st_size} {stat.st_rdev}"

print(told("/copied/links/a"), os.path.samefile("/copied/links/a", "/copied/links/c"))
print(told("/changed/devices/null"), told("/changed/devices/loop"), told("/changed/devices/fifo"))
print(os.path.exists("/changed/going/away"), open("/changed/going/changed").read(), len(os.listdir("/changed/going")))
print(os.path.samefile("/parts/a", "/parts/another"), sorted(os.listdir("/copied/names")), open("/changed/empty").read())
print(os.lstat("/changed/attributes/big-owner").st_uid, os.readlink("/changed/names/ünï-☃"), oct(os.lstat("/changed/attributes").st_mode))
