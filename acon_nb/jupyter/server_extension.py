"""An extension of Jupyter Server that makes consoles respond faster.

It relays messages between a page's websocket at `acon-nb/channels/NAME` and the process whose channels have that name
(`acon_nb.jupyter.channel`), so that a console's bytes need no kernel messages. It also sends a kernel's small messages
at once (TCP_NODELAY): otherwise they wait for the acknowledgement of the previous message (Nagle's algorithm, RFC 896).

`acon-nb lab` enables it; elsewhere run `jupyter server extension enable acon_nb.jupyter.server_extension`. Without it
everything works through kernel messages, more slowly.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from acon_nb.jupyter import channel

_CONNECTION = "kernel_websocket_connection_class"
_ROUTE = "acon-nb/channels/"
_PAGE_SETTING = "aconChannels"  # tells the page that the route exists, and where
_MESSAGE_BYTES = 1 << 20


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": "acon_nb.jupyter.server_extension"}]


def _load_jupyter_server_extension(server: Any) -> None:
    from jupyter_server.utils import url_path_join

    settings = server.web_app.settings
    settings[_CONNECTION] = _prompt(settings[_CONNECTION])
    route = url_path_join(settings["base_url"], _ROUTE)
    server.web_app.add_handlers(".*$", [(route + "([0-9a-f]{32})", _channel_handler())])
    settings.setdefault("page_config_data", {})[_PAGE_SETTING] = _ROUTE


def _prompt(base: Any) -> Any:
    class PromptConnection(base):  # type: ignore[misc]
        """The server's own connection class, without the delay."""

        def connect(self) -> Any:
            self.websocket_handler.set_nodelay(True)
            return super().connect()

    return PromptConnection


def _channel_handler() -> Any:
    from jupyter_core.utils import ensure_async
    from jupyter_server.auth.decorator import ws_authenticated
    from jupyter_server.base.handlers import JupyterHandler
    from jupyter_server.base.websocket import WebSocketMixin
    from tornado import web
    from tornado.websocket import WebSocketHandler

    class ChannelHandler(WebSocketMixin, WebSocketHandler, JupyterHandler):
        """A page's websocket, for users who may execute code in kernels: a console runs commands in its guest."""

        auth_resource = "kernels"
        _socket: socket.socket | None = None

        def set_default_headers(self) -> None:
            """Set none: this is a websocket."""

        @ws_authenticated
        async def get(self, name: str) -> None:
            if not await ensure_async(self.authorizer.is_authorized(self, self.current_user, "execute", "kernels")):
                raise web.HTTPError(403)
            try:
                self._socket = channel.connect(name)
            except OSError as error:
                raise web.HTTPError(404, f"no process has channels of that name: {error}") from error
            self._socket.setblocking(False)
            try:
                await super().get(name)
            finally:
                self._disconnect()

        def open(self, name: str) -> None:
            super().open(name)
            self.set_nodelay(True)
            if self._socket is not None:
                asyncio.get_running_loop().add_reader(self._socket, self._relay)

        def _relay(self) -> None:
            try:
                message = self._socket.recv(_MESSAGE_BYTES) if self._socket else b""
            except BlockingIOError:
                return
            except OSError:
                message = b""
            if not message:
                self._disconnect()
                self.close()
                return
            self.write_message(message, binary=True)

        async def on_message(self, message: str | bytes) -> None:
            if self._socket is not None:
                data = message.encode() if isinstance(message, str) else message
                try:
                    await asyncio.get_running_loop().sock_sendall(self._socket, data)
                except OSError:
                    self.close()

        def on_close(self) -> None:
            self._disconnect()

        def _disconnect(self) -> None:
            if self._socket is not None:
                asyncio.get_running_loop().remove_reader(self._socket)
                self._socket.close()
                self._socket = None

    return ChannelHandler
