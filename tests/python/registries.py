"""A schema registry for tests: the common REST interface, served by a thread."""

from __future__ import annotations

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

if TYPE_CHECKING:
    import ssl
    from types import TracebackType

Schema = dict[str, Any]


class Registry:
    """Schemas under subjects; ``requests`` are those that came, in order.

    Ids are given from ``first_id`` on, so that those of two registries differ. With ``tls`` it
    speaks https.
    """

    def __init__(
        self,
        *,
        user: tuple[str, str] | None = None,
        token: str | None = None,
        first_id: int = 1,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.schemas: dict[int, Schema] = {}
        self.subjects: dict[str, list[int]] = {}
        self.requests: list[str] = []
        #: Why connections failed.
        self.refused: list[str] = []
        #: How many of the next answers are an error of the server.
        self.failures = 0
        self._next_id = first_id
        self._lock = threading.Lock()
        self._authorization = None
        if user is not None:
            encoded = base64.b64encode(":".join(user).encode()).decode()
            self._authorization = f"Basic {encoded}"
        if token is not None:
            self._authorization = f"Bearer {token}"
        registry = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self) -> None:
                size = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(size)) if size else None
                status, answer = registry.answer(
                    self.command, self.path, body, self.headers.get("Authorization")
                )
                payload = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
                self.send_header("Content-Length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)

            do_GET = do_POST = _answer  # noqa: N815

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def finish_request(self, request: Any, client_address: Any) -> None:
                # The handshake is in the thread of the connection; a client may break it off.
                if tls is None:
                    super().finish_request(request, client_address)
                    return
                try:
                    with tls.wrap_socket(request, server_side=True) as secured:
                        super().finish_request(secured, client_address)
                except OSError as error:
                    registry.refused.append(str(error))

        self._scheme = "http" if tls is None else "https"
        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"{self._scheme}://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Registry:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def register(
        self,
        subject: str,
        schema: Any,
        kind: str = "AVRO",
        references: list[dict[str, Any]] | None = None,
    ) -> int:
        """Register a schema as a client would; return its id."""
        text = schema if isinstance(schema, str) else json.dumps(schema)
        body: Schema = {"schema": text, "references": references or []}
        if kind != "AVRO":
            body["schemaType"] = kind
        with self._lock:
            return self._register(subject, body)

    def answer(
        self, method: str, path: str, body: Schema | None, authorization: str | None
    ) -> tuple[int, Any]:
        """Answer one request."""
        url = urlsplit(path)
        with self._lock:
            self.requests.append(f"{method} {unquote(url.path)}")
            if self.failures:
                self.failures -= 1
                return 503, {"error_code": 50301, "message": "not now"}
            if authorization != self._authorization:
                return 401, {"error_code": 40101, "message": "Unauthorized"}
            parts = [unquote(part) for part in url.path.strip("/").split("/")]
            return self._route(method, parts, parse_qs(url.query), body)

    def _route(  # noqa: PLR0911
        self, method: str, parts: list[str], query: dict[str, list[str]], body: Schema | None
    ) -> tuple[int, Any]:
        match method, parts:
            case "GET", ["schemas", "ids", number]:
                schema = self.schemas.get(int(number))
                if schema is None:
                    return 404, {"error_code": 40403, "message": "Schema not found"}
                return 200, self._shown(schema, query)
            case "GET", ["subjects", subject, "versions", version]:
                ids = self.subjects.get(subject, [])
                at = len(ids) if version in {"latest", "-1"} else int(version)
                if not 1 <= at <= len(ids):
                    message = f"Subject '{subject}' not found."
                    return 404, {"error_code": 40401, "message": message}
                schema = self._shown(self.schemas[ids[at - 1]], query)
                return 200, {"subject": subject, "version": at, "id": ids[at - 1], **schema}
            case "POST", ["subjects", subject, "versions"]:
                assert body is not None
                known = self._register(subject, body)
                return 200, {"id": known, **self.schemas[known]}
            case "POST", ["subjects", subject]:
                assert body is not None
                for at, known in enumerate(self.subjects.get(subject, []), 1):
                    found = self.schemas[known]
                    if found == self._normal(body):
                        return 200, {"subject": subject, "version": at, "id": known, **found}
                return 404, {"error_code": 40403, "message": "Schema not found"}
            case _:
                return 404, {"error_code": 404, "message": f"no such place: {parts}"}

    def _shown(self, schema: Schema, query: dict[str, list[str]]) -> Schema:
        if query.get("format") == ["serialized"] and schema.get("schemaType") == "PROTOBUF":
            return {**schema, "schema": _serialized(schema["schema"], self._files(schema))}
        return schema

    def _files(self, schema: Schema) -> dict[str, str]:
        files: dict[str, str] = {}
        for one in schema["references"]:
            ids = self.subjects[one["subject"]]
            referred = self.schemas[ids[one["version"] - 1]]
            files |= {**self._files(referred), one["name"]: referred["schema"]}
        return files

    def _register(self, subject: str, body: Schema) -> int:
        schema = self._normal(body)
        known = [number for number, one in self.schemas.items() if one == schema]
        number = known[0] if known else self._next_id
        if not known:
            self._next_id += 1
            self.schemas[number] = schema
        ids = self.subjects.setdefault(subject, [])
        if number not in ids:
            ids.append(number)
        return number

    @staticmethod
    def _normal(body: Schema) -> Schema:
        kind = body.get("schemaType") or "AVRO"
        text = body["schema"]
        schema = {"schema": text, "references": body.get("references") or []}
        return schema if kind == "AVRO" else {**schema, "schemaType": kind}


def _serialized(text: str, files: dict[str, str]) -> str:
    """Return the base64 of the descriptor of a .proto text."""
    import tempfile
    from pathlib import Path

    from google.protobuf.descriptor_pb2 import FileDescriptorSet
    from grpc_tools import protoc

    if "{" not in text:
        return text  # it came as a descriptor
    with tempfile.TemporaryDirectory() as folder:
        for name, content in {**files, "default.proto": text}.items():
            place = Path(folder, name)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(content)
        out = Path(folder, "out.bin")
        include = Path(protoc.__file__).parent / "_proto"
        arguments = ["", f"-I{folder}", f"-I{include}", f"--descriptor_set_out={out}"]
        assert protoc.main([*arguments, str(Path(folder, "default.proto"))]) == 0
        found = FileDescriptorSet.FromString(out.read_bytes()).file[-1]
    return base64.b64encode(found.SerializeToString()).decode()
