"""An object store on this machine that speaks as much of S3 as pyarrow.fs needs to read a bucket."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import final
from urllib.parse import parse_qs, unquote, urlsplit


@final
class Store(ThreadingHTTPServer):
    """Objects by bucket/key; `asked` holds every range of bytes that was read."""

    daemon_threads = True

    def __init__(self, objects: Mapping[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects = dict(objects)
        self.asked: list[tuple[str, int]] = []

    def uri(self, path: str) -> str:
        """The URI of a bucket, a folder in it or an object."""
        options = f"endpoint_override=127.0.0.1:{self.server_port}&scheme=http&region=us-east-1"
        return f"s3://key:secret@{path}?{options}"


@final
class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Store

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        parts = urlsplit(self.path)
        path, query = unquote(parts.path).strip("/"), parse_qs(parts.query, keep_blank_values=True)
        if "list-type" in query:
            self._send(200, self._listing(path, query), {"Content-Type": "application/xml"})
        elif path in self.server.objects:
            self._send_part(path)
        elif "/" not in path and any(name.startswith(path + "/") for name in self.server.objects):
            self._send(200, b"")
        else:
            self._send(404, b"<Error><Code>NoSuchKey</Code><Message>none</Message></Error>")

    def _send_part(self, path: str) -> None:
        content = self.server.objects[path]
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        headers = {"ETag": '"1"', "Last-Modified": "Sat, 01 Jan 2022 00:00:00 GMT"}
        if found is None:
            self._send(200, content, headers)
            return
        start, stop = int(found[1]), min(int(found[2]) + 1, len(content))
        self.server.asked.append((path, stop - start))
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
        self._send(206, content[start:stop], headers)

    def _listing(self, bucket: str, query: Mapping[str, list[str]]) -> bytes:
        prefix = query.get("prefix", [""])[0]
        inside = [name.removeprefix(bucket + "/") for name in sorted(self.server.objects)]
        keys = [key for key in inside if key.startswith(prefix) and bucket + "/" + key in self.server.objects]
        if query.get("delimiter"):
            keys = [key for key in keys if "/" not in key[len(prefix) :]]
        entries = "".join(
            f"<Contents><Key>{key}</Key><LastModified>2022-01-01T00:00:00.000Z</LastModified><ETag>1</ETag>"
            f"<Size>{len(self.server.objects[f'{bucket}/{key}'])}</Size></Contents>"
            for key in keys
        )
        return (
            f"<ListBucketResult><Name>{bucket}</Name><Prefix>{prefix}</Prefix><KeyCount>{len(keys)}</KeyCount>"
            f"<MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated>{entries}</ListBucketResult>"
        ).encode()

    def _send(self, status: int, content: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *words: object) -> None:
        """Nothing is told."""


@contextmanager
def store_of(objects: Mapping[str, bytes]) -> Iterator[Store]:
    """A store that answers while the body runs."""
    with Store(objects) as store:
        thread = threading.Thread(target=store.serve_forever)
        thread.start()
        try:
            yield store
        finally:
            store.shutdown()
            thread.join()
