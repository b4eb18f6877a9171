#!/opt/venv/bin/python -I
"""Jupyter for Colab's page: ``vnquant-local-runtime serve|url|health``.

serve makes a token and serves kernels until SIGTERM; url prints the address that Colab asks for,
health says whether the server answers. The token is in no log, no variable and no label: only in a
file that the container's user alone can read. docs/colab-local-runtime.md says how it is used.
"""

from __future__ import annotations

import os
import secrets
import sys
import urllib.request
from pathlib import Path

ORIGIN = "https://colab.research.google.com"
"""The only page that may talk to this server; programs, which send no origin, may as well."""
PORT = 8080
TOKEN = Path("/tmp/.vnquant-local-runtime")
FOLDER = "/content"


def serve() -> None:
    """Serve until told to stop."""
    from jupyter_server.auth.identity import IdentityProvider
    from jupyter_server.base.handlers import JupyterHandler
    from jupyter_server.serverapp import ServerApp
    from traitlets.config import Config

    class Strict(IdentityProvider):
        """As it is, a token lets pages of any origin in; here it does not."""

        def should_check_origin(self, handler: JupyterHandler) -> bool:
            return True

    token = secrets.token_urlsafe(32)
    TOKEN.unlink(missing_ok=True)
    TOKEN.touch(mode=0o600)
    TOKEN.write_text(token)

    config = Config()
    config.IdentityProvider.token = token
    config.ServerApp.update(
        identity_provider_class=Strict,
        allow_origin=ORIGIN,
        # Colab's page sends its requests with credentials since April 2025.
        allow_credentials=True,
        # Chrome asks this of a server on loopback before a page of the internet may talk to it.
        tornado_settings={"headers": {"Access-Control-Allow-Private-Network": "true"}},
        # All of the container; `docker run -p 127.0.0.1:...` is what keeps others out.
        ip="0.0.0.0",
        # A name that somebody else's DNS points at loopback is refused.
        allow_remote_access=False,
        local_hostnames=["localhost"],
        port=PORT,
        port_retries=0,
        root_dir=FOLDER,
        open_browser=False,
        allow_root=True,
    )
    ServerApp.launch_instance(argv=[], config=config)


def url() -> None:
    """Print the address, token included, for the port on which the host publishes this server."""
    port = os.environ.get("VNQUANT_LOCAL_PORT", "9000")
    print(f"http://127.0.0.1:{port}/?token={TOKEN.read_text()}")


def health() -> None:
    """End with 0 if the server answers; else the exception is the reason."""
    with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/api", timeout=5) as answer:
        print(answer.status)


if __name__ == "__main__":
    {"serve": serve, "url": url, "health": health}[sys.argv[1]]()
