"""Serve recommendations over HTTP: python examples/serve.py shipped:films-sasrec

Then: curl -s localhost:8000/recommend -H 'content-type: application/json' \
          -d '{"histories": [["1", "3114", "588"]], "k": 5}'

Needs the extra `serve`: pip install odmt-sdk[serve,tables].
"""

import argparse

import uvicorn

from odmt_sdk.data import read_columns
from odmt_sdk.serving import Limits, create_app


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("adapter", help="a folder, a repository of the Hub, or shipped:NAME")
    parser.add_argument("--items", help="a table with item_id and text, shown beside each item")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--reload-seconds", type=float, default=5.0)
    parser.add_argument("--log-level", default="info", help="log level, such as warning")
    arguments = parser.parse_args()

    metadata = None
    if arguments.items:
        table = read_columns(arguments.items, ["item_id", "text"])
        pairs = zip(table["item_id"].tolist(), table["text"].tolist(), strict=True)
        metadata = {item_id: {"text": text} for item_id, text in pairs}
    app = create_app(
        arguments.adapter,
        metadata=metadata,
        limits=Limits(reload_seconds=arguments.reload_seconds),
    )
    uvicorn.run(
        app,
        host=arguments.host,
        port=arguments.port,
        log_level=arguments.log_level,
        # An idle connection stays open for longer than proxies and clients keep one, commonly a
        # minute. If the server closed it first, a request sent at that moment would be lost.
        timeout_keep_alive=75,
        timeout_graceful_shutdown=30,  # on SIGTERM pending requests are answered first
    )


if __name__ == "__main__":
    main()
