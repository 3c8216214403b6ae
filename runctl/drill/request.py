"""One request as it came, and what it is: the service, the action, the region and whose key signed it."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, unquote

#: What S3's requests are, by method and query; those of a bucket, without a key, first.
_S3_OF_BUCKETS = (
    ("PUT", "lifecycle", "PutBucketLifecycleConfiguration"),
    ("GET", "lifecycle", "GetBucketLifecycleConfiguration"),
    ("PUT", "encryption", "PutBucketEncryption"),
    ("GET", "encryption", "GetBucketEncryption"),
    ("PUT", "publicAccessBlock", "PutPublicAccessBlock"),
    ("GET", "publicAccessBlock", "GetPublicAccessBlock"),
    ("PUT", "tagging", "PutBucketTagging"),
    ("GET", "tagging", "GetBucketTagging"),
    ("PUT", "policy", "PutBucketPolicy"),
    ("GET", "policy", "GetBucketPolicy"),
    ("PUT", "ownershipControls", "PutBucketOwnershipControls"),
    ("GET", "ownershipControls", "GetBucketOwnershipControls"),
    ("GET", "location", "GetBucketLocation"),
    ("GET", "uploads", "ListMultipartUploads"),
    ("GET", "list-type", "ListObjectsV2"),
    ("POST", "delete", "DeleteObjects"),
    ("GET", "", "ListObjects"),
    ("HEAD", "", "HeadBucket"),
    ("PUT", "", "CreateBucket"),
    ("DELETE", "", "DeleteBucket"),
)
_S3_OF_OBJECTS = (
    ("POST", "uploads", "CreateMultipartUpload"),
    ("POST", "uploadId", "CompleteMultipartUpload"),
    ("PUT", "partNumber", "UploadPart"),
    ("DELETE", "uploadId", "AbortMultipartUpload"),
    ("GET", "uploadId", "ListParts"),
    ("GET", "", "GetObject"),
    ("PUT", "", "PutObject"),
    ("HEAD", "", "HeadObject"),
    ("DELETE", "", "DeleteObject"),
)


@dataclass
class Request:
    """A request of AWS's.

    Attributes:
        key: the access key that signed it, also a presigned URL; empty if none did.
        target: what its JSON is for; empty for one that is no JSON.
        body: empty for S3, whose bodies may be large and are read by whoever answers.
        environ: of WSGI, from which the body can be read once more.
    """

    service: str
    region: str
    key: str
    action: str
    target: str
    body: bytes
    environ: dict[str, Any]

    @classmethod
    def of(cls, environ: dict[str, Any]) -> Request:
        """Read a request but for what S3 is sent."""
        service, region, key = _scope(environ)
        target = environ.get("HTTP_X_AMZ_TARGET", "")
        request = cls(service, region, key, "", target, b"", environ)
        if service != "s3":
            request.body = request.read()
        request.action = request._named()
        return request

    def read(self) -> bytes:
        """The body, whole; whoever answers can read it all the same."""
        data: bytes = self.environ["wsgi.input"].read(int(self.environ.get("CONTENT_LENGTH") or 0))
        self.environ["wsgi.input"] = io.BytesIO(data)
        return data

    @property
    def path(self) -> str:
        return str(self.environ.get("PATH_INFO", ""))

    @property
    def query(self) -> dict[str, str]:
        """What stands behind the question mark."""
        told = parse_qs(self.environ.get("QUERY_STRING", ""), keep_blank_values=True)
        return {name: values[0] for name, values in told.items()}

    @property
    def form(self) -> dict[str, str]:
        """What EC2, IAM and STS are asked, name by name."""
        told = parse_qs(self.body.decode(errors="replace"), keep_blank_values=True)
        return {name: values[0] for name, values in told.items()}

    @property
    def market(self) -> str | None:
        """Of RunInstances: `spot` or `on_demand`."""
        if self.action != "RunInstances":
            return None
        return "spot" if b"MarketType=spot" in self.body else "on_demand"

    @property
    def bucket(self) -> str:
        return self.path.strip("/").split("/", 1)[0]

    @property
    def object_key(self) -> str:
        return self.path.lstrip("/").partition("/")[2]

    def _named(self) -> str:
        if self.target:
            return self.target.rsplit(".", 1)[-1]
        if self.service == "s3":
            method, query = self.environ["REQUEST_METHOD"], self.query
            known = _S3_OF_OBJECTS if self.object_key else _S3_OF_BUCKETS
            return next((name for m, key, name in known if m == method and (not key or key in query)), method)
        return self.form.get("Action", "?")


def _scope(environ: dict[str, Any]) -> tuple[str, str, str]:
    """Service, region and access key, as the signature names them; without one it is S3's, by a presigned URL."""
    text = environ.get("HTTP_AUTHORIZATION", "") + environ.get("QUERY_STRING", "").replace("%2F", "/")
    found = re.search(r"Credential=([^/]+)/\d+/([a-z0-9-]+)/([a-z0-9-]+)/aws4_request", text)
    if found is not None:
        return found[3], found[2], unquote(found[1])
    older = re.search(r"(?:^|&)AWSAccessKeyId=([^&]+)", environ.get("QUERY_STRING", ""))
    return "s3", "us-east-1", unquote(older[1]) if older is not None else ""
