"""TLS in front of any server on loopback, with a certificate that nobody knows.

    with TlsProxy("127.0.0.1", server.port) as proxy:
        connect(port=proxy.port, ca_certs=proxy.certificate)

The certificate is made with the program `openssl`, and names 127.0.0.1 and localhost.
"""

from __future__ import annotations

import select
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import Self

_CHUNK = 65_536  # bytes


class TlsProxy:
    """Takes TLS connections on `port` of 127.0.0.1, and forwards what comes to `target_host:target_port` without TLS.

    certificate: the file of its certificate, which clients must be told to trust.
    """

    def __init__(self, target_host: str, target_port: int) -> None:
        self._target = (target_host, target_port)
        self._folder = Path(tempfile.mkdtemp(prefix="tls-"))
        self.certificate = self._folder / "certificate.pem"
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._context = _context(self.certificate, self._folder / "key.pem")
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0.05)
        self.port = int(self._listener.getsockname()[1])
        self._start(self._listen)
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        while self._threads:
            self._threads.pop().join()
        self._listener.close()
        shutil.rmtree(self._folder)

    def _start(self, work: object, *args: object) -> None:
        thread = threading.Thread(target=work, args=args)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _listen(self) -> None:
        while not self._ended.is_set():
            with suppress(TimeoutError):
                self._start(self._serve, self._listener.accept()[0])

    def _serve(self, plain: socket.socket) -> None:
        plain.settimeout(10)
        try:
            client = self._context.wrap_socket(plain, server_side=True)
        except OSError:  # it does not like our certificate, or speaks no TLS
            plain.close()
            return
        with client, socket.create_connection(self._target) as server, suppress(OSError):
            while not self._ended.is_set():
                self._forward(client, server)

    def _forward(self, client: ssl.SSLSocket, server: socket.socket) -> None:
        """Forward what has come, from either side. Raises `OSError` when one of them is gone."""
        ready = [client] if client.pending() else select.select([client, server], [], [], 0.05)[0]
        for source, sink in ((client, server), (server, client)):
            if source in ready:
                data = source.recv(_CHUNK)
                if not data:
                    raise ConnectionResetError
                sink.sendall(data)


def _context(certificate: Path, key: Path) -> ssl.SSLContext:
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", str(key), "-out", str(certificate), "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context
