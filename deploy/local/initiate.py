"""Initiates a replica set of new mongods and waits until one is primary. Needs only Python.

usage: initiate.py SET PORT...

With TICKETLOG_LOCAL_LOGINS it also creates the user `admin`, with the password `secret`.

Implements only the part of the wire protocol (OP_MSG) that two commands need.
"""
import os
import socket
import struct
import sys
import time


def element(key, value):
    name = key.encode() + b"\0"
    if isinstance(value, dict):
        return b"\x03" + name + document(value)
    if isinstance(value, list):
        return b"\x04" + name + document({str(at): item for at, item in enumerate(value)})
    if isinstance(value, str):
        text = value.encode() + b"\0"
        return b"\x02" + name + struct.pack("<i", len(text)) + text
    return b"\x10" + name + struct.pack("<i", value)


def document(fields):
    body = b"".join(element(key, value) for key, value in fields.items())
    return struct.pack("<i", len(body) + 5) + body + b"\0"


def command(port, fields):
    body = struct.pack("<i", 0) + b"\0" + document({**fields, "$db": "admin"})
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(struct.pack("<iiii", len(body) + 16, 1, 0, 2013) + body)
        reply = b""
        while len(reply) < 4 or len(reply) < struct.unpack("<i", reply[:4])[0]:
            chunk = connection.recv(65536)
            if not chunk:
                raise ConnectionError("mongod closed the connection")
            reply += chunk
    return reply


def main():
    name, ports = sys.argv[1], [int(port) for port in sys.argv[2:]]
    members = [{"_id": at, "host": f"127.0.0.1:{port}"} for at, port in enumerate(ports)]
    settings = {"electionTimeoutMillis": 2000, "heartbeatIntervalMillis": 500}
    config = {"_id": name, "members": members, **({"settings": settings} if len(ports) > 1 else {})}
    command(ports[0], {"replSetInitiate": config})  # fails without harm if the set is initiated already
    deadline = time.monotonic() + 60
    primary = b"\x08isWritablePrimary\x00\x01"
    while not any(primary in command(port, {"hello": 1}) for port in ports):
        if time.monotonic() > deadline:
            sys.exit(f"no mongod on the ports {ports} became primary within a minute")
        time.sleep(0.1)
    if os.environ.get("TICKETLOG_LOCAL_LOGINS"):
        command(ports[0], {"createUser": "admin", "pwd": "secret", "roles": ["root"]})


main()
