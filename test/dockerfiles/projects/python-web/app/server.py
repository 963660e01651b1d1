import argparse
import os
import signal
import subprocess
from http.server import BaseHTTPRequestHandler, HTTPServer

from shout import shout


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        said = subprocess.run(["shout", "from", "a", "script"], capture_output=True, text=True).stdout
        body = f"{shout('it works')} {os.getuid()} {said}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


parser = argparse.ArgumentParser()
parser.add_argument("--port", type=int)
signal.signal(signal.SIGTERM, lambda *_: os._exit(7))
HTTPServer(("", parser.parse_args().port), Handler).serve_forever()
