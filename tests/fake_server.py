"""A server that answers as OpenAI's does, or fails as servers do."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# Given the request, what the assistant says, or its message's fields; or a status to fail with; or
# seconds to hang.
Answer = Callable[[dict[str, Any]], str | dict[str, Any] | int | float]


class FakeServer:
    """url, and the requests that came in (body, authorization header)."""

    def __init__(self, answer: Answer) -> None:
        self.requests: list[tuple[dict[str, Any], str]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.requests.append((body, self.headers.get("Authorization", "")))
                said = answer(body)
                if isinstance(said, float):
                    time.sleep(said)
                    said = 500
                if isinstance(said, int):
                    self.send_response(said)
                    self.send_header("Retry-After", "0")
                    self.end_headers()
                    return
                fields = said if isinstance(said, dict) else {"content": said}
                content = {
                    "id": "x",
                    "object": "chat.completion",
                    "created": 0,
                    "model": body["model"],
                    "choices": [
                        {
                            "index": 0,
                            "finish_reason": "stop",
                            "message": {"role": "assistant", **fields},
                        }
                    ],
                    "usage": {"prompt_tokens": 10, "completion_tokens": 3, "total_tokens": 13},
                }
                raw = json.dumps(content).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"


@contextmanager
def fake_server(answer: Answer) -> Iterator[FakeServer]:
    """A server on a free port, stopped at the end."""
    fake = FakeServer(answer)
    thread = threading.Thread(target=fake.server.serve_forever, daemon=True)
    thread.start()
    try:
        yield fake
    finally:
        fake.server.shutdown()
        fake.server.server_close()
