"""A W&B server for tests: answers what a run needs, and remembers which runs asked."""

from __future__ import annotations

import gzip
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class WandbServer:
    """Listens on the loopback address until it is closed.

    Attributes:
        url: for ``WANDB_BASE_URL``.
        runs: names of the runs that were begun or resumed.
    """

    def __init__(self) -> None:
        self.runs: list[str] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Be gone: connections are refused from now on."""
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        if "mutation UpsertBucket" in query:
            name = variables.get("name")
            self.runs.append(str(name))
            project = {"id": "p", "name": "dpmi", "entity": {"id": "e", "name": "me"}}
            bucket = {"id": "b", "name": name, "displayName": name, "project": project}
            empty = {"config": "{}", "summaryMetrics": "{}", "historyLineCount": 0}
            return {"upsertBucket": {"bucket": bucket | empty, "inserted": True}}
        if "mutation CreateRunFiles" in query:
            files = [{"name": f, "uploadUrl": f"{self.url}/{f}"} for f in variables["files"]]
            return {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": files}}
        if "viewer" in query:
            viewer = {"id": "v", "flags": "{}", "entity": "me", "username": "me"}
            return {"viewer": viewer | {"teams": {"edges": []}}}
        return {}

    def _handler(outer) -> type[BaseHTTPRequestHandler]:  # noqa: N805
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._send({})

            def do_PUT(self) -> None:
                self._body()
                self._send({})

            def do_POST(self) -> None:
                body = self._body()
                if self.path.endswith("/graphql"):
                    asked = json.loads(body)
                    told = outer._answer(asked["query"], asked.get("variables") or {})
                    self._send({"data": told})
                else:
                    self._send({"exitcode": None, "limits": {}})

            def _body(self) -> bytes:
                raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                return gzip.decompress(raw) if self.headers.get("Content-Encoding") else raw

            def _send(self, value: Any) -> None:
                content = json.dumps(value).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                """Keep the test's output clean."""

        return Handler
