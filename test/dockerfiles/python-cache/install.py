import os, sys, zipfile
cache, site = "/root/.cache/pip", "/usr/lib/python3/dist-packages"
os.makedirs(site, exist_ok=True)
for line in open(sys.argv[1]):
    name = line.strip().replace("==", "-")
    kept = f"{cache}/{name}.whl"
    if not os.path.exists(kept):
        with zipfile.ZipFile(kept, "w") as wheel:
            for file in os.listdir(f"/wheels/{name}"):
                wheel.write(f"/wheels/{name}/{file}", file)
    zipfile.ZipFile(kept).extractall(site)
