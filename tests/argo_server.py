"""As much of the Argo server as the ``surefoot`` command speaks to, over HTTP on this machine."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from workflows import argo

Document = dict[str, Any]


class Server(BaseHTTPRequestHandler):
    """It knows one WorkflowTemplate, and a Workflow that goes through the ``looks`` that it is given."""

    template: Document
    created: list[Document]
    faults: list[str]  # of the next requests that submit makes: "away", or "lost" for one that is done and whose answer is lost
    tokens: list[str | None]
    looks: list[Document | str]  # the Workflow's status at each look, the last one for good; "away" for a server that is
    asked: list[str]
    lines: list[str]  # of the log
    store: str  # its address

    def do_GET(self) -> None:
        """Give the WorkflowTemplate, the log, or the Workflow in its next state."""
        self.tokens.append(self.headers["Authorization"])
        path, query = urlsplit(self.path).path, parse_qs(urlsplit(self.path).query)
        if "/workflow-templates/" in path and self.fault() == "away":
            self.answer(502, {"message": "bad gateway"})
        elif "/workflow-templates/" in path:
            found = self.template if "/fraud/" in path else None
            self.answer(200 if found else 404, found or {"message": "workflowtemplates.argoproj.io not found"})
        elif not any(f"/{name}" in path for name in ("surefoot-abcde", *self.names())):
            self.answer(404, {"code": 5, "message": 'workflows.argoproj.io "nobody" not found'})
        elif path.endswith("/log"):
            self.asked.append(self.path)
            self.answer(200, "".join(f"{line}\n" for line in self.lines))
        elif (look := self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]) == "away":
            self.answer(502, {"message": "bad gateway"})
        else:
            self.asked.append(self.path)
            self.answer(200, chosen(look, query["fields"][0].split(","), self.store))

    def do_POST(self) -> None:
        """Take a Workflow."""
        made = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["workflow"]
        if (fault := self.fault()) == "away":
            self.answer(502, {"message": "bad gateway"})
        elif made["metadata"]["name"] in self.names():
            self.answer(409, {"message": "already exists"})
        else:
            self.created.append(made)
            self.answer(502 if fault == "lost" else 200, {"message": "bad gateway"} if fault == "lost" else made)

    def fault(self) -> str:
        """Take the next fault."""
        return self.faults.pop(0) if self.faults else ""

    def names(self) -> list[str]:
        """Give the names of the Workflows that it took."""
        return [one["metadata"]["name"] for one in self.created]

    def answer(self, code: int, document: Any) -> None:
        """Send a text, or a JSON document."""
        body = (document if isinstance(document, str) else json.dumps(document)).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def chosen(status: Any, fields: list[str], store: str) -> Document:
    """Give a Workflow with the fields that were asked for."""
    wanted = {field.partition(".")[2] for field in fields if field.startswith("status.")}
    given = [{"name": "store", "value": store}]
    return {
        "metadata": {"name": "surefoot-abcde"},
        "spec": {"arguments": {"parameters": given}},
        "status": {name: value for name, value in status.items() if name in wanted},
    }


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Server]]:
    """Serve on this machine, with the environment that a user would have set."""
    known: Document = {
        "template": argo.render(),
        **{name: [] for name in ("created", "faults", "tokens", "looks", "asked", "lines")},
        "store": "s3://bucket/prefix",
    }
    handler = type("Handler", (Server,), known)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as listening:
        threading.Thread(target=listening.serve_forever, args=(0.02,), daemon=True).start()
        monkeypatch.setenv("ARGO_SERVER", f"http://127.0.0.1:{listening.server_port}")
        monkeypatch.setenv("ARGO_NAMESPACE", "fraud")
        monkeypatch.setenv("ARGO_TOKEN", "secret")
        yield handler
        listening.shutdown()
