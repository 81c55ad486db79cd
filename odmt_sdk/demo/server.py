"""`launch`: serves the page without any connection to other servers."""

import os
import re
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

from odmt_sdk.demo.page import build, import_gradio
from odmt_sdk.tables import Table
from odmt_sdk.wrapper import ODMTWrapper

# Pictures, styles and scripts come from this server; browsers refuse all others.
# Gradio renders its components with functions that it makes from text ('unsafe-eval').
CONTENT_SECURITY_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "object-src 'none'; form-action 'self'"
)
# Routes by which Gradio stores and serves files or contacts other servers; the page needs none.
_CLOSED = re.compile(
    r"/(file[=/]|upload|proxy=|stream/|deep_link|process_recording|monitoring|run-history|"
    r"dev/|vibe)"
)
# Fonts of the visitor's system; none is loaded.
FONTS = ("Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif")
_Message = dict[str, Any]


def launch(
    model: ODMTWrapper | str | Path | None = None,
    items: Table | None = None,
    image_folder: str | os.PathLike[str] | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 7860,
    title_column: str | None = None,
    image_column: str = "image",
    examples: Mapping[str, Sequence[Hashable]] | None = None,
    k: int = 8,
    title: str | None = None,
    loading: Mapping[str, Any] | None = None,
    open_browser: bool = False,
    block: bool = True,
) -> Any:
    """Serve a page to try a model in the browser, see `build`.

    The page loads nothing from other servers, and sends nothing to them. It has no telemetry and no
    accounts: whoever can reach the host and the port can use it.

    Args:
        model: a model, or a path, repository or "shipped:..."; None = a small drawn shop.
        items: table with `item_id`, and titles and pictures if there are any.
        image_folder: folder of the pictures.
        host: address to listen at; "0.0.0.0" also serves other machines.
        port: port to listen at; 0 = any free one.
        title_column: column of the titles; None = "title", "text" or "name".
        image_column: column of the pictures.
        examples: name -> item ids of a history to begin with.
        k: number of recommendations to begin with, 1 to 24.
        title: heading of the page.
        loading: further arguments of `from_pretrained`, such as `backbone`.
        open_browser: whether to open the page in the browser of this machine.
        block: whether to serve until interrupted; False = return immediately.

    Returns:
        The `gradio.Blocks` that is served: `local_url` is its address, `close()` stops it.

    Raises:
        OSError: if the port is taken.
        ValueError: as `build`.
        AdapterError: as `build`.
        ImportError: if Gradio is not installed (`pip install odmt-sdk[demo]`).

    Examples:
        >>> launch()                                    # the drawn shop     # doctest: +SKIP
        >>> launch("my-adapter", "items.parquet", "images", port=8000)       # doctest: +SKIP
    """
    gradio = import_gradio()
    if not 0 <= port < 65536:
        raise ValueError(f"port={port} must lie in 0..65535; 0 = any free one")
    page = build(
        model,
        items,
        image_folder,
        title_column=title_column,
        image_column=image_column,
        examples=examples,
        k=k,
        title=title,
        loading=loading,
    )
    from starlette.middleware import Middleware

    page.launch(
        server_name=host,
        server_port=port or _free_port(host),
        share=False,
        inbrowser=open_browser,
        prevent_thread_lock=True,
        ssr_mode=False,
        mcp_server=False,
        enable_monitoring=False,
        run_history=False,
        pwa=False,
        footer_links=[],
        theme=gradio.themes.Default(
            primary_hue="blue", neutral_hue="gray", font=FONTS, font_mono="monospace"
        ),
        app_kwargs={"middleware": [Middleware(LocalOnly)]},
        quiet=True,
    )
    print(f"The page is at {page.local_url}" + (" (stop it with Ctrl+C)" if block else ""))
    if block:
        page.block_thread()
    return page


class LocalOnly:
    """ASGI middleware that keeps the page on this server, and files on this machine.

    It adds a content security policy to every answer, and closes the routes by which Gradio serves
    and stores files.

    Args:
        app: the application.
    """

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if _CLOSED.search(scope["path"]):
            await send({"type": "http.response.start", "status": 404, "headers": []})
            await send({"type": "http.response.body", "body": b"this page serves no files"})
            return

        async def add_policy(message: _Message) -> None:
            if message["type"] == "http.response.start":
                policy = CONTENT_SECURITY_POLICY.encode()
                headers = [*message.get("headers", []), (b"content-security-policy", policy)]
                message = {**message, "headers": [*headers, (b"referrer-policy", b"no-referrer")]}
            await send(message)

        await self._app(scope, receive, add_policy)


def _free_port(host: str) -> int:
    import socket

    with socket.socket() as free:
        free.bind((host, 0))
        return int(free.getsockname()[1])
