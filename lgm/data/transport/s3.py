"""s3:// to addresses that any web client can ask: botocore finds the credentials and signs.

So S3 has the same patience, ranges and resumption as any web server. What says where and who is what the
aws command reads: AWS_ENDPOINT_URL(_S3) for other stores than Amazon's, AWS_REGION, AWS_PROFILE,
AWS_ACCESS_KEY_ID and so on, files in ~/.aws, the machine's own role; AWS_NO_SIGN_REQUEST=yes for public
buckets.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any

from lgm.masking import masked

_VALID_S = 3600  # a signature; each attempt gets its own


def signed_url(url: str) -> str:
    """An http(s) address for s3://bucket/key.

    Raises FileNotFoundError in one line where a package, credentials or the bucket's name are missing;
    OSError where a service that gives credentials does not answer.
    """
    exceptions = _exceptions(url)
    bucket, _, key = url.removeprefix("s3://").partition("/")
    if not bucket or not key or "@" in bucket:
        raise FileNotFoundError(
            f"{masked(url)} names no file in a bucket; write s3://<bucket>/<folder>, with credentials in the "
            "AWS_… variables"
        )
    try:
        return store_client(url).generate_presigned_url(
            "get_object", Params={"Bucket": bucket, "Key": key}, ExpiresIn=_VALID_S
        )
    except exceptions.NoCredentialsError as error:
        raise FileNotFoundError(
            f"{url}: no credentials; set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
            "AWS_NO_SIGN_REQUEST=yes for a public bucket"
        ) from error
    except (
        exceptions.CredentialRetrievalError,
        exceptions.MetadataRetrievalError,
        exceptions.HTTPClientError,
        exceptions.ConnectionError,
    ) as error:
        raise OSError(f"credentials: {masked(error)}") from error
    except (exceptions.BotoCoreError, ValueError) as error:
        raise FileNotFoundError(
            f"{url}: {masked(error)}; see the AWS_… variables and ~/.aws/config"
        ) from error


def store_client(url: str) -> Any:
    """botocore's client of the store, as the environment describes it; one a process.

    url: what is asked for, for messages. Raises FileNotFoundError in one line where botocore is missing.
    """
    _exceptions(url)
    unsigned = os.environ.get("AWS_NO_SIGN_REQUEST", "").lower() in ("1", "yes", "true")
    region = os.environ.get("AWS_REGION")  # botocore itself looks at AWS_DEFAULT_REGION alone
    return _client(os.getpid(), unsigned, region)


def _exceptions(url: str) -> Any:
    try:
        import botocore.exceptions
    except ImportError as error:
        raise FileNotFoundError(
            f"{url} needs botocore, which is not installed: pip install 'lgm-training[s3]'"
        ) from error
    return botocore.exceptions


@lru_cache(maxsize=1)
def _client(process: int, unsigned: bool, region: str | None) -> Any:
    """One a process: making it takes half a second, and what a fork shares is no one's."""
    import botocore
    import botocore.config
    import botocore.session

    session = botocore.session.Session()
    config = botocore.config.Config(signature_version=botocore.UNSIGNED if unsigned else "s3v4")
    client = session.create_client("s3", region_name=region, config=config)
    if ".amazonaws.com" in client.meta.endpoint_url:
        # Else it signs for the world-wide host, which sends requests on to a region's: another host than
        # was signed. Other stores are asked as they expect, with the bucket in the path.
        style = botocore.config.Config(s3={"addressing_style": "virtual"})
        client = session.create_client("s3", region_name=region, config=config.merge(style))
    return client
