"""A server that takes what W&B's own tools send, and keeps it to be looked at."""

import json
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class WandbServer:
    """Runs in this process while it is entered.

    Attributes:
        url: for WANDB_BASE_URL.
        runs: names of the runs that it was told of.
        lines: of history, by run.
        bodies: all that was sent, as it came.
        views: specifications of workspaces that it was given to save.
    """

    def __init__(self, at_once=1, refuses=False):
        """Answer a run when ``at_once`` runs have come; or answer nobody."""
        self.runs, self.lines, self.views, self.refuses = set(), {}, [], refuses
        self.bodies = []
        self._together = threading.Barrier(at_once)
        self._lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"owner": self})
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self):
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._http.shutdown()
        self._http.server_close()

    @property
    def came_together(self):
        """Whether no run waited for another in vain."""
        return not self._together.broken

    def graphql(self, query, variables):
        if "upsertBucket" in query:
            return {"upsertBucket": self._run(variables["name"])}
        if "upsertView" in query:
            self.views.append(json.loads(variables["spec"]))
            return {"upsertView": {"view": {"id": "1", "name": variables["name"]}}}
        if "createRunFiles" in query:
            files = [{"name": n, "uploadUrl": f"{self.url}/{n}"} for n in variables["files"]]
            return {"createRunFiles": {"runID": "1", "uploadHeaders": [], "files": files}}
        if "viewer" in query:
            return {"viewer": {"id": "1", "entity": "team", "username": "user", "flags": "{}"}}
        return {}

    def _run(self, name):
        with self._lock:
            known = name in self.runs
            self.runs.add(name)
        if not known:
            with suppress(threading.BrokenBarrierError):
                self._together.wait(timeout=60)
        project = {"id": "1", "name": "dpmi", "entity": {"id": "1", "name": "team"}}
        bucket = {"id": "1", "name": name, "displayName": name, "config": "{}", "project": project}
        return {"bucket": bucket, "inserted": not known}

    def stream(self, run, files):
        content = files.get("wandb-history.jsonl", {}).get("content", [])
        self.lines.setdefault(run, []).extend(json.loads(line) for line in content)


class _Handler(BaseHTTPRequestHandler):
    owner: WandbServer

    def do_GET(self):
        self._answer({})

    def do_PUT(self):
        self._read()
        self._answer({})

    def do_POST(self):
        body = self._read()
        if self.path == "/graphql":
            request = json.loads(body)
            found = self.owner.graphql(request["query"], request.get("variables") or {})
            self._answer({"data": found})
        else:
            if self.path.endswith("/file_stream"):
                self.owner.stream(self.path.split("/")[-2], json.loads(body).get("files") or {})
            self._answer({})

    def _read(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.owner.bodies.append(body)
        return body

    def _answer(self, value):
        if self.owner.refuses:
            self.send_error(401)
            return
        content = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        """Keep the test's output clean."""
