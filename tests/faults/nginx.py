"""nginx in front of the service as an operator sets it up: kept connections, and a second try where that is safe."""

from __future__ import annotations

import socket

from tests.servers import Server, free_port, program

# A request that was sent is repeated only where its method allows that (nginx's default), and a generation that is
# not there is asked again each time: which of the two is there changes with every restart.
CONFIG = """
daemon off;
user root;
pid {folder}/pid;
error_log stderr warn;
events {{ worker_connections 2048; }}
http {{
    access_log off;
    client_body_temp_path {folder}/client;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream service {{
        {servers}
        keepalive 64;
    }}
    upstream once {{
        {servers}
    }}
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        keepalive_requests 100000;
        # A login can't be sent again, so it is never sent on a kept connection that is just being closed.
        location = /login {{
            proxy_pass http://once;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_next_upstream error timeout;
        }}
        location / {{
            proxy_pass http://service;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_next_upstream error timeout;
        }}
    }}
}}
"""


class Nginx(Server):
    """One nginx over the generations of the service on `ports`."""

    def __init__(self, *ports: int) -> None:
        self.port = free_port()
        super().__init__([program("nginx"), "-e", "stderr", "-c", "{folder}/nginx.conf"])
        servers = "\n        ".join(f"server 127.0.0.1:{port} max_fails=0;" for port in ports)
        text = CONFIG.format(folder=self.folder, servers=servers, port=self.port)
        (self.folder / "nginx.conf").write_text(text)

    def answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0
