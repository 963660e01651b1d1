import os
import shutil

shutil.rmtree("going/away")
os.remove("links/c")
os.link("links/b", "links/d")
os.chmod("devices/null", 0o600)
os.remove("names/ünï-☃")
os.symlink("replaced", "names/ünï-☃")
shutil.rmtree("empty")
with open("empty", "w") as file:
    file.write("a file now")
with open("going/changed", "a") as file:
    file.write(" and after")
for number in range(0, 50, 2):
    os.remove(f"going/many-{number}")
shutil.move("sparse", "renamed")
