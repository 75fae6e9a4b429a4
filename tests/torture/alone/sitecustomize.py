"""Put first on PYTHONPATH: every Python of a command, its children too, speaks to this machine alone and says so.

What tries to reach another address is refused, and written to the file that SUITE_SOCKETS names.
"""

import os
import sys

_LOOPBACK = ("127.", "::1", "localhost", "0:0:0:0:0:0:0:1")
_WATCHED = {"socket.connect", "socket.sendto", "socket.sendmsg", "socket.bind", "socket.getaddrinfo"}
_WATCHED |= {"socket.gethostbyname", "socket.gethostbyaddr", "socket.getnameinfo"}


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    if event not in _WATCHED:
        return
    address = arguments[1] if event in ("socket.connect", "socket.sendto", "socket.sendmsg", "socket.bind") else None
    host = (address[0] if isinstance(address, tuple) else address) if address is not None else arguments[0]
    # A path is a socket of this machine; no address is one that is connected already.
    if address is not None and not isinstance(address, tuple):
        return
    if isinstance(host, bytes):
        host = host.decode("utf-8", "replace")
    if host is None or (isinstance(host, str) and host.startswith(_LOOPBACK)):
        return
    with open(os.environ["SUITE_SOCKETS"], "a", encoding="utf-8") as file:
        file.write(f"{event} {host}\n")
    raise PermissionError(f"{event} {host}: this test allows this machine alone")


if "SUITE_SOCKETS" in os.environ:
    sys.addaudithook(_hook)
