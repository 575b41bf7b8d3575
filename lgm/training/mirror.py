"""A run's checkpoints a second time, under an S3-compatible URL, uploaded beside training."""

from __future__ import annotations

import itertools
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from lgm.data.transport.s3 import store_client
from lgm.errors import first_line
from lgm.files import atomic
from lgm.masking import masked

log = logging.getLogger(__name__)

# S3 takes at most 5 GiB in one request and 10,000 parts; parts below 5 MiB are refused.
_PART_BYTES = 64 << 20
_COPY_PART_BYTES = 1 << 30
_CHUNK = 1 << 20
_ATTEMPTS = 3  # of an upload, each of whose requests botocore repeats by itself
_PAUSE_S = 5.0
_LONGEST_WAIT_S = 600.0  # for uploads at the end of a run
_PREVIOUS = re.compile(r"previous(?:_(\d+))?\.ckpt", re.ASCII)
_NAME = re.compile(r"(?:last|best|previous(?:_\d+)?|step_\d{8,12})\.ckpt", re.ASCII)


@dataclass
class _Upload:
    """A file to upload: open, so that a newer file that takes its place on the disk changes nothing."""

    file: BinaryIO
    num_previous: int
    kept_as: str | None


class Mirror:
    """The checkpoints of a run as objects `<prefix>/last.ckpt`, `<prefix>/previous.ckpt`, … of a bucket.

    An own thread uploads; of a file that is written faster than it is uploaded, the newest alone. A store
    shows an object when all of it has arrived, so that a kill in the middle of an upload leaves the one
    before. What is kept of those before is copied within the store. An upload that fails costs a warning,
    never a step.

    url: s3://<bucket>/<prefix>; endpoint and credentials as `lgm.data.transport.s3`.
    """

    def __init__(self, url: str) -> None:
        bucket, _, prefix = url.removeprefix("s3://").partition("/")
        prefix = prefix.strip("/")
        if not url.startswith("s3://") or not bucket or not prefix or "@" in bucket:
            raise ValueError(
                f"checkpoints.mirror={masked(url)} is not s3://<bucket>/<folder>; endpoint and credentials "
                "are in the AWS_… variables"
            )
        self.url = f"s3://{bucket}/{prefix}"
        self._bucket, self._prefix = bucket, prefix
        self._waiting: dict[str, _Upload] = {}
        self._changed = threading.Condition()
        self._is_uploading = False
        self._thread: threading.Thread | None = None

    # Uploading

    def push(self, path: Path, num_previous: int = 0, kept_as: str | None = None) -> None:
        """Upload a file that is written; returns at once.

        num_previous: how many of its predecessors stay, as previous.ckpt, previous_2.ckpt, …
        kept_as: a second name that the object gets, for ever.
        """
        upload = _Upload(path.open("rb"), num_previous, kept_as)
        with self._changed:
            if (before := self._waiting.pop(path.name, None)) is not None:
                before.file.close()
                upload.kept_as = upload.kept_as or before.kept_as
            self._waiting[path.name] = upload
            if self._thread is None:
                # A daemon: a program that is told to end at once does not wait for a store.
                self._thread = threading.Thread(target=self._run, daemon=True, name="checkpoint-mirror")
                self._thread.start()
            self._changed.notify_all()

    def wait(self) -> None:
        """Until all is uploaded, or has failed; no longer than ten minutes."""
        with self._changed:
            if self._waiting or self._is_uploading:
                log.info("waiting for the upload of checkpoints to %s", self.url)
            is_done = lambda: not self._waiting and not self._is_uploading  # noqa: E731
            if not self._changed.wait_for(is_done, _LONGEST_WAIT_S):
                log.warning("%s: the upload is given up after %g s", self.url, _LONGEST_WAIT_S)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._is_uploading = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: bool(self._waiting))
                name, upload = next(iter(self._waiting.items()))
                del self._waiting[name]
                self._is_uploading = True
            with upload.file:
                self._upload_patiently(name, upload)

    def _upload_patiently(self, name: str, upload: _Upload) -> None:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                self._upload(name, upload)
            except Exception as error:  # of botocore, urllib3, the system: training goes on
                reason = masked(first_line(error))
                if attempt == _ATTEMPTS or name in self._waiting:
                    log.warning("%s/%s is not written: %s; training goes on", self.url, name, reason)
                    return
                log.warning("%s/%s: %s; again in %g s", self.url, name, reason, _PAUSE_S)
                time.sleep(_PAUSE_S)
            else:
                return

    def _upload(self, name: str, upload: _Upload) -> None:
        sizes = self._sizes()
        if upload.num_previous and name in sizes:
            self._shift(name, upload.num_previous, sizes)
            upload.num_previous = 0  # once, however many attempts the upload takes
        self._put(self._key(name), upload.file)
        if upload.kept_as is not None:
            self._copy(name, upload.kept_as, upload.file.seek(0, 2))

    def _shift(self, name: str, count: int, sizes: dict[str, int]) -> None:
        """`name` also becomes previous.ckpt, that one previous_2.ckpt, and so on to `count`; others go."""
        names = [name, *_previous_names(count)]
        for source, target in reversed(list(itertools.pairwise(names))):
            if source in sizes:
                self._copy(source, target, sizes[source])
        for old in sizes:
            if _PREVIOUS.fullmatch(old) and old not in names:
                self._client().delete_object(Bucket=self._bucket, Key=self._key(old))

    def _put(self, key: str, file: BinaryIO) -> None:
        size = file.seek(0, 2)
        file.seek(0)
        if size <= _PART_BYTES:
            self._client().put_object(Bucket=self._bucket, Key=key, Body=file.read())
            return
        self._in_parts(key, size, _PART_BYTES, self._put_part(file))

    def _put_part(self, file: BinaryIO) -> Callable[..., Any]:
        def put(start: int, stop: int, **part: Any) -> Any:
            file.seek(start)
            return self._client().upload_part(Body=file.read(stop - start), **part)["ETag"]

        return put

    def _copy(self, source: str, target: str, size: int) -> None:
        """Within the store."""
        where = {"Bucket": self._bucket, "Key": self._key(source)}
        if size <= _COPY_PART_BYTES:
            self._client().copy_object(Bucket=self._bucket, Key=self._key(target), CopySource=where)
            return

        def copy(start: int, stop: int, **part: Any) -> Any:
            answer = self._client().upload_part_copy(
                CopySource=where, CopySourceRange=f"bytes={start}-{stop - 1}", **part
            )
            return answer["CopyPartResult"]["ETag"]

        self._in_parts(self._key(target), size, _COPY_PART_BYTES, copy)

    def _in_parts(self, key: str, size: int, part_bytes: int, transfer: Callable[..., Any]) -> None:
        """A multipart upload: the object appears when it is completed. What a killed one has left is
        ended."""
        client, where = self._client(), {"Bucket": self._bucket, "Key": key}
        for left in client.list_multipart_uploads(Bucket=self._bucket, Prefix=key).get("Uploads", []):
            if left["Key"] == key:
                client.abort_multipart_upload(**where, UploadId=left["UploadId"])
        where["UploadId"] = client.create_multipart_upload(**where)["UploadId"]
        try:
            parts = [
                {"PartNumber": number, "ETag": transfer(start, stop, PartNumber=number, **where)}
                for number, (start, stop) in enumerate(_ranges(size, part_bytes), 1)
            ]
            client.complete_multipart_upload(**where, MultipartUpload={"Parts": parts})
        except BaseException:
            with suppress(Exception):
                client.abort_multipart_upload(**where)
            raise

    # Reading

    def names(self) -> list[str]:
        """The checkpoints of the mirror to go on from, in the order in which they are tried: last.ckpt, those
        before it, best.ckpt. Raises ValueError in one line where the store cannot be asked."""
        try:
            sizes = self._sizes()
        except FileNotFoundError:
            raise
        except Exception as error:
            raise ValueError(
                f"checkpoints.mirror={self.url} cannot be read: {masked(first_line(error))}; see the AWS_… "
                "variables, or checkpoints.mirror=null"
            ) from error
        previous = [name for name in _previous_names(len(sizes)) if name in sizes]
        return [name for name in ("last.ckpt", *previous, "best.ckpt") if name in sizes]

    def fetch(self, name: str, path: Path) -> None:
        """Write an object to `path`, atomically. Raises ValueError in one line."""
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            answer = self._client().get_object(Bucket=self._bucket, Key=self._key(name))
            with atomic(path, sync=True) as partial, partial.open("wb") as file:
                for chunk in answer["Body"].iter_chunks(_CHUNK):
                    file.write(chunk)
        except Exception as error:
            raise ValueError(f"{self.url}/{name} cannot be fetched: {masked(first_line(error))}") from error

    def _sizes(self) -> dict[str, int]:
        """Bytes of the mirror's checkpoints, by name."""
        pages = self._client().get_paginator("list_objects_v2")
        sizes = {}
        for page in pages.paginate(Bucket=self._bucket, Prefix=f"{self._prefix}/", Delimiter="/"):
            for entry in page.get("Contents", []):
                name = entry["Key"].rpartition("/")[2]
                if _NAME.fullmatch(name):
                    sizes[name] = entry["Size"]
        return sizes

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{name}"

    def _client(self) -> Any:
        return store_client(self.url)


def _previous_names(count: int) -> list[str]:
    return ["previous.ckpt", *(f"previous_{number}.ckpt" for number in range(2, count + 1))][:count]


def _ranges(size: int, step: int) -> Iterator[tuple[int, int]]:
    for start in range(0, size, step):
        yield start, min(start + step, size)
