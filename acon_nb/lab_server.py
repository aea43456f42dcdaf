"""An extension of Jupyter Server: small messages of a kernel leave at once (TCP_NODELAY on its websocket).

Without it a console's echo waits for the acknowledgement of the message before (Nagle's algorithm, RFC 896). `acon-nb
lab` switches it on; another Jupyter does by `jupyter server extension enable acon_nb.lab_server`.
"""

from __future__ import annotations

from typing import Any

_SETTING = "kernel_websocket_connection_class"


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": "acon_nb.lab_server"}]


def _load_jupyter_server_extension(server: Any) -> None:
    base: Any = server.web_app.settings[_SETTING]

    class PromptConnection(base):  # type: ignore[misc]
        """The server's own connection, whichever it is, without the delay."""

        def connect(self) -> Any:
            self.websocket_handler.set_nodelay(True)
            return super().connect()

    server.web_app.settings[_SETTING] = PromptConnection
