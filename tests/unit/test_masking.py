"""Credentials in URLs, commands and the environment: masked in texts, records, configurations and errors."""

import io
import logging

import pytest

from lgm.errors import first_line, reading, shown
from lgm.masking import mask_error, mask_logs, masked, masked_values

SECRET = "hunter2-S3cr3t"


@pytest.mark.parametrize(
    "text",
    [
        f"http://user:{SECRET}@host/set",
        f"https://{SECRET}@github.com/o/n: HTTP 404",
        f"HTTP://user:p@{SECRET}@host:80/set",
        f"http://user:p/{SECRET}@host/set",
        f"http://user:{SECRET} b@host/set is wrong",
        f"postgresql://me:{SECRET}@db/optuna",
        f"https://h/a.tar?X-Amz-Signature={SECRET}&X-Amz-Credential={SECRET}%2Fus: HTTP 403",
        f"https://h/a.tar?sv=2022-11-02&sig={SECRET}%3D",
        f"['data.path=https://h/set?token={SECRET}', 'train.seed=1']",
        f"https://h/a?access_token={SECRET}",
        f"https://h/a?key={SECRET}",
        f"https://h/a?some_new_name={SECRET}",
        f"https://h/a?{SECRET}",
        f"https://h/a#access_token={SECRET}",
        f"https://h/a?path=http%3A%2F%2Fu%3A{SECRET}%40b",
        f"pipe:curl -sf -u me:{SECRET} https://h/{{}}",
        f"pipe:curl --user 'me:{SECRET}' https://h/{{}}",
        f"pipe:curl -H 'Authorization: Basic {SECRET}' https://h/{{}}",
        f"pipe:curl -H 'X-Api-Key: {SECRET}' 'https://h/{{}}?sig={SECRET}'",
        f"pipe:AWS_SECRET_ACCESS_KEY={SECRET} aws s3 cp s3://b/{{}} -",
        f"pipe:rclone cat :s3,secret_access_key={SECRET},region=eu:b/{{}}",
        f"pipe:wget --password {SECRET} -qO- ftp://h/{{}}",
        f"pipe:sshpass -p {SECRET} ssh h cat /set/{{}}",
        f"AccountName=a;AccountKey={SECRET}==;EndpointSuffix=x",
        f"+logger.wandb.settings={{api_key:{SECRET}}}",
        f"{{'api_key': '{SECRET}', 'mode': 'online'}}",
    ],
)
def test_credentials_are_masked(text):
    for result in (masked(text), masked(masked(text)), first_line(ValueError(text)), shown("x" * 280 + text)):
        assert SECRET not in result and SECRET[:8] not in result and "***" in result


@pytest.mark.parametrize(
    "text",
    [
        "http://127.0.0.1:8000/set/a.tar: HTTP 404, ask me@lab.org",
        "https://[::1]:80/set, or me@lab.org",
        "https://site/models?id=12&download=1: connection refused",
        "https://github.com/owner/name#install",
        "s3://bucket/set/index.json: HTTP 404 NoSuchKey: The specified key does not exist.",
        "AuthorizationHeaderMalformed: The authorization header is malformed",
        "credentials: no answer from 169.254.169.254",
        "pipe:sort -u /data/{}",
        "num_tokens=77, pad_token=null, train.seed=3",
        "/data/a?b=c",
    ],
)
def test_what_is_no_credential_stays(text):
    assert masked(text) == text


def test_the_environments_credentials_are_masked_wherever_they_stand(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("SOME_API_TOKEN", "short")
    assert masked(f"x {SECRET} y") == "x *** y" and masked("short") == "short"


def test_values_by_their_name_and_within_lists():
    values = {
        "path": f"http://u:{SECRET}@h/s",
        "n": 3,
        "logger": {"api_key": SECRET},
        "sets": [f"https://h/?s={SECRET}"],
    }
    assert SECRET not in str(masked_values(values))
    plain = {"path": "/data/set", "n": 3, "keys": ["a"], "ratio": None, "tokens": "77"}
    assert masked_values(plain) == plain


def test_errors_and_those_behind_them(monkeypatch):
    try:
        try:
            raise FileNotFoundError(2, "no such file", f"http://u:{SECRET}@h/s")
        except OSError as error:
            raise ValueError(f"data.path=http://u:{SECRET}@h/s is wrong") from error
    except ValueError as error:
        mask_error(error)
        assert SECRET not in str(error) + str(error.__cause__) and "data.path=http://***@h/s" in str(error)  # noqa: PT017
    with (
        pytest.raises(ValueError, match=r"http://\*\*\*@h/s cannot be read"),
        reading(f"http://u:{SECRET}@h/s"),
    ):
        raise RuntimeError("broken")


def test_log_records_of_every_handler(monkeypatch):
    monkeypatch.setattr(logging, "_logRecordFactory", logging.LogRecord)
    mask_logs()
    mask_logs()
    stream, log = io.StringIO(), logging.getLogger("lgm.test_masking")
    handler = logging.StreamHandler(stream)
    log.addHandler(handler)
    try:
        log.error("%s of %d", f"http://u:{SECRET}@h/s", 3)
        try:
            raise ValueError(f"https://h/s?sig={SECRET}")
        except ValueError:
            log.exception("failed")
    finally:
        log.removeHandler(handler)
    lines = stream.getvalue()
    assert (
        SECRET not in lines and "http://***@h/s of 3" in lines and "ValueError: https://h/s?sig=***" in lines
    )
