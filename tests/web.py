"""A web server on this machine that hands out files, and repositories as the Hugging Face hub does."""

import hashlib
import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Web(ThreadingHTTPServer):
    """Files by path, repositories by name and commit (the last one is `main`), and a log of what was asked for.

    With `cut`, a file's first answer breaks off after so many bytes, and the server answers 503 until `cut` is None.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.repositories: dict[str, dict[str, dict[str, bytes]]] = {}
        self.gated: set[str] = set()
        self.log: list[tuple[str, str, str | None]] = []
        self.cut: int | None = None
        self.broken = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def fetched(self) -> set[str]:
        """The files of repositories whose content was asked for, as COMMIT/FILE."""
        found = (re.search(r"/resolve/(.+)", path) for method, path, _ in self.log if method == "GET")
        return {match[1] for match in found if match}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Web

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        path = self.path.partition("?")[0]
        self.server.log.append((self.command, path, self.headers.get("Range")))
        if self.server.broken and self.server.cut is not None:
            return self.send(b"", 503)
        if path in self.server.files:
            return self.send(self.server.files[path], body=body)
        for name, commits in self.server.repositories.items():
            if name in self.server.gated and name in path:
                return self.send(b"", 403, {"X-Error-Code": "GatedRepo", "X-Error-Message": "gated"})
            if path == f"/api/models/{name}/revision/main":
                return self.send_json({"id": name, "sha": list(commits)[-1], "siblings": []})
            for commit, files in commits.items():
                if path == f"/api/models/{name}/tree/{commit}":
                    return self.send_json([entry(file, data) for file, data in files.items()])
                file = path.removeprefix(f"/{name}/resolve/{commit}/")
                if file in files:
                    headers = {"ETag": f'"{oid(files[file])}"', "X-Repo-Commit": commit}
                    return self.send(files[file], headers=headers, body=body)
        return self.send(b"", 404)

    def send_json(self, content):
        self.send(json.dumps(content).encode(), headers={"Content-Type": "application/json"})

    def send(self, data, status=200, headers=None, body=True):
        start = re.match(r"bytes=(\d+)-", self.headers.get("Range") or "")
        extra = dict(headers or {})
        if start and status == 200:
            begin = int(start[1])
            if begin >= len(data):
                return self.send_error(416)
            status, extra["Content-Range"] = 206, f"bytes {begin}-{len(data) - 1}/{len(data)}"
            data = data[begin:]
        self.send_response(status)
        for key, value in {"Content-Length": str(len(data)), **extra}.items():
            self.send_header(key, value)
        self.end_headers()
        if not body:
            return None
        if self.server.cut is not None and status == 200 and self.path.partition("?")[0] in self.server.files:
            self.server.broken = True
            self.wfile.write(data[: self.server.cut])
            self.close_connection = True
            return None
        self.wfile.write(data)
        return None


def oid(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


def entry(file: str, data: bytes) -> dict[str, object]:
    return {"type": "file", "path": file, "size": len(data), "oid": oid(data)}


@contextmanager
def serving():
    """A server that answers while the block runs."""
    server = Web()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def empty_machine(folder, monkeypatch):
    """Make every cache a new folder in `folder`, as on a machine that nothing was fetched to."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder / "hub"))
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(folder / "torch"))
    monkeypatch.setenv("SPECTRUM_HOME", str(folder / "spectrum"))
    return folder
