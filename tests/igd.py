"""A home router that speaks UPnP, as a program to run inside its namespace: `python -m tests.igd LAN_ADDRESS`.

It answers SSDP searches, describes itself, and does what AddPortMapping and DeletePortMapping ask for with nftables. What it did is
told on stdout, a line each.
"""

import re
import socket
import struct
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

GROUP, PORT, HTTP_PORT = "239.255.255.250", 1900, 5000
DEVICE = "urn:schemas-upnp-org:device:InternetGatewayDevice:1"
SERVICE = "urn:schemas-upnp-org:service:WANIPConnection:1"
DESCRIPTION = f"""<?xml version="1.0"?>
<root xmlns="urn:schemas-upnp-org:device-1-0"><specVersion><major>1</major><minor>0</minor></specVersion>
<device><deviceType>{DEVICE}</deviceType><deviceList><device>
<deviceType>urn:schemas-upnp-org:device:WANDevice:1</deviceType><deviceList><device>
<deviceType>urn:schemas-upnp-org:device:WANConnectionDevice:1</deviceType><serviceList><service>
<serviceType>{SERVICE}</serviceType><serviceId>urn:upnp-org:serviceId:WANIPConn1</serviceId>
<controlURL>/control</controlURL><eventSubURL>/events</eventSubURL><SCPDURL>/scpd.xml</SCPDURL>
</service></serviceList></device></deviceList></device></deviceList></device></root>
"""


def answer_searches(lan: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ssdp:
        ssdp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        ssdp.bind(("", PORT))
        membership = struct.pack("4s4s", socket.inet_aton(GROUP), socket.inet_aton(lan))
        ssdp.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
        while True:
            data, sender = ssdp.recvfrom(2048)
            if data.startswith(b"M-SEARCH"):
                lines = (
                    "HTTP/1.1 200 OK", "CACHE-CONTROL: max-age=120", f"ST: {DEVICE}", f"USN: uuid:1::{DEVICE}", "EXT:",
                    "SERVER: test/1 UPnP/1.0 test/1", f"LOCATION: http://{lan}:{HTTP_PORT}/description.xml", "", "",
                )  # fmt: skip
                ssdp.sendto("\r\n".join(lines).encode(), sender)


class Control(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self._say(DESCRIPTION if self.path == "/description.xml" else "<scpd/>")

    def do_POST(self) -> None:
        asked = self.rfile.read(int(self.headers["Content-Length"])).decode()
        action = self.headers["SOAPAction"].strip('"').rpartition("#")[2]
        values = dict(re.findall(r"<(New\w+)>([^<]*)</", asked))
        told = ""
        if action == "GetStatusInfo":
            told = "<NewConnectionStatus>Connected</NewConnectionStatus><NewLastConnectionError/><NewUptime>9</NewUptime>"
        elif action == "GetExternalIPAddress":
            told = "<NewExternalIPAddress>5.5.5.2</NewExternalIPAddress>"
        elif action == "AddPortMapping":
            outside, inside = values["NewExternalPort"], f"{values['NewInternalClient']}:{values['NewInternalPort']}"
            rule = f"nft add rule ip home in iifname wan tcp dport {outside} dnat to {inside}"
            subprocess.run(rule.split(), check=True)
            print("added", values["NewPortMappingDescription"], values["NewLeaseDuration"], flush=True)
        elif action == "DeletePortMapping":
            subprocess.run(["nft", "flush", "chain", "ip", "home", "in"], check=True)
            print("deleted", values["NewExternalPort"], flush=True)
        envelope = "http://schemas.xmlsoap.org/soap/envelope/"
        self._say(
            f'<?xml version="1.0"?><s:Envelope xmlns:s="{envelope}"><s:Body>'
            f'<u:{action}Response xmlns:u="{SERVICE}">{told}</u:{action}Response></s:Body></s:Envelope>'
        )

    def _say(self, text: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/xml")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


def main(lan: str) -> None:
    threading.Thread(target=answer_searches, args=(lan,), daemon=True).start()
    server = ThreadingHTTPServer((lan, HTTP_PORT), Control)
    print("ready", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(sys.argv[1])
