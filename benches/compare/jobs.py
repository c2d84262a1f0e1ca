"""The job that all servers do, and the requests that are made of them."""

import base64
import dataclasses
import hashlib
import hmac
import json
import time

TENANTS = 100
# Tenants and linked accounts that send requests, and the pages that they ask for.
ACTIVE_TENANTS = 20
ACCOUNTS = 200
PAGES = 10
PATH = "/api/v2/public/execution"
SECRET = "a-secret-for-the-benchmark-of-forty-bytes"
# The parameters that tell one page from another.
PARAMETERS = ("page", "limit", "status", "execution_source", "execution_type", "start_date", "end_date")


@dataclasses.dataclass(frozen=True)
class Protocol:
    name: str
    has_tls: bool
    is_http2: bool


HTTP1 = Protocol("HTTP/1.1", False, False)
HTTP1_TLS = Protocol("HTTP/1.1 over TLS", True, False)
HTTP2 = Protocol("HTTP/2", False, True)
HTTP2_TLS = Protocol("HTTP/2 over TLS", True, True)


@dataclasses.dataclass(frozen=True)
class Row:
    """Requests of one sort. `credential` is `key`, `jwt` or `session`."""

    name: str
    is_miss: bool = False
    credential: str = "key"
    coding: str = "identity"

    @property
    def is_plain(self):
        """True if other servers than Postern can do it."""
        return self.credential == "key" and self.coding == "identity"


HIT = Row("hit")
MISS = Row("miss", is_miss=True)
ZSTD = Row("hit zstd", coding="zstd")
JWT = Row("hit JWT", credential="jwt")
SESSION = Row("hit session", credential="session")


@dataclasses.dataclass(frozen=True)
class Section:
    """Rows that are measured with one protocol and number of workers, beside the same servers."""

    workers: int
    protocol: Protocol
    rows: tuple
    servers: tuple

    @property
    def name(self):
        return f"{self.workers} worker{'s' if self.workers > 1 else ''}, {self.protocol.name}"

    def servers_of(self, row):
        """Returns the names of the servers that can do the row's job; a constant answer is never a miss."""
        if not row.is_plain:
            return ("postern",)
        return tuple(name for name in self.servers if not (row.is_miss and name == "hyper"))


SECTIONS = (
    Section(1, HTTP1, (HIT, MISS, ZSTD, JWT, SESSION), ("nginx", "haproxy", "varnish", "postern", "hyper", "direct")),
    Section(1, HTTP1_TLS, (HIT,), ("nginx", "haproxy", "postern")),
    Section(1, HTTP2, (HIT,), ("nginx", "haproxy", "varnish", "postern")),
    Section(1, HTTP2_TLS, (HIT, MISS), ("nginx", "haproxy", "postern", "direct")),
    Section(2, HTTP1, (HIT, MISS), ("nginx", "haproxy", "varnish", "postern")),
    Section(2, HTTP2_TLS, (HIT,), ("nginx", "haproxy", "postern")),
)


def page():
    """Returns a page of ten executions in the documented form."""
    object_id = lambda n: hashlib.sha256(str(n).encode()).hexdigest()[:24]
    docs = [
        {
            "_id": object_id(n),
            "createdAt": f"2026-03-1{n}T14:19:34.788Z",
            "name": f"Retry for workflow {object_id(n + 10)}",
            "associated_application": {
                "icon": "https://cobalt-app-logos.s3.ap-south-1.amazonaws.com/slack/logo.png",
                "name": "Slack",
                "_id": object_id(n + 20),
            },
            "status": "COMPLETED",
            "associated_workflow": {"_id": object_id(n + 30), "name": "Post message to a channel", "icon": ""},
            "environment": "test",
            "config_id": "12345",
            "associated_event_id": object_id(n + 40),
        }
        for n in range(10)
    ]
    paging = {"totalDocs": 24742, "limit": 10, "totalPages": 2475, "page": 1, "pagingCounter": 1}
    return {"docs": docs, **paging, "hasPrevPage": False, "hasNextPage": True, "prevPage": None, "nextPage": 2}


def target(page_number):
    return f"{PATH}?page={page_number}&limit=10&status=COMPLETED&execution_source=All"


def jwt(n):
    """Returns a JWT for a linked account, of a realistic length."""
    encode = lambda part: base64.urlsafe_b64encode(part).rstrip(b"=")
    claims = {
        "iss": "bench", "aud": "bench", "exp": int(time.time()) + 86400, "tenant": f"tenant-{n % ACTIVE_TENANTS}",
        "linked_account_id": f"user_{n}@example.com", "sub": f"user-{n}", "name": "A name of some length", "pad": "x" * 300,
    }
    message = encode(b'{"alg":"HS256","typ":"JWT"}') + b"." + encode(json.dumps(claims).encode())
    return (message + b"." + encode(hmac.digest(SECRET.encode(), message, "sha256"))).decode()


def headers(row, n):
    """Returns the headers of the n-th caller."""
    if row.credential == "jwt":
        return {"authorization": f"Bearer {jwt(n)}"}
    if row.credential == "session":
        return {"authorization": f"Bearer session-token-{hashlib.sha256(str(n).encode()).hexdigest()}"}
    account = f"user_{n}@example.com"
    return {"x-api-key": f"key-{n % ACTIVE_TENANTS}", "linked_account_id": account, "accept-encoding": row.coding}
