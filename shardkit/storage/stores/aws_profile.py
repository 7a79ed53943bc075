"""Credentials, region and endpoint from the files of the AWS command line, which obstore does not read.

~/.aws/credentials and ~/.aws/config, or AWS_SHARED_CREDENTIALS_FILE and AWS_CONFIG_FILE; the profile is the storage
option `profile`, AWS_PROFILE, or `default`. The order is boto's: options, environment, web identity, files, then the
machine's role. A profile that signs in, assumes a role or runs a program is left to boto3, if it is installed.
"""

from __future__ import annotations

import configparser
import os
from collections.abc import Mapping
from typing import Any

from shardkit.errors import MissingExtraError, UsageError

_KEYS = {
    "aws_access_key_id": "access_key_id",
    "aws_secret_access_key": "secret_access_key",
    "aws_session_token": "session_token",
}
_GIVEN = ("access_key_id", "aws_access_key_id", "skip_signature", "aws_skip_signature", "credential_provider")
_ENVIRONMENT = ("AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_SKIP_SIGNATURE")
_DYNAMIC = ("sso_session", "sso_start_url", "role_arn", "credential_process", "source_profile", "login_session")


def from_shared_files(config: Mapping[str, Any], place: str) -> dict[str, Any]:
    """`config` completed by the profile; its own entries and the environment take precedence.

    Raises UsageError if the profile does not exist, MissingExtraError if only boto3 can use it.
    """
    config = dict(config)
    asked = config.pop("profile", None)
    name = str(asked or os.environ.get("AWS_PROFILE") or "default")
    profile = _profile(name)
    if profile is None:
        if asked or os.environ.get("AWS_PROFILE"):
            raise UsageError(place, f"there is no AWS profile {name!r}", "check ~/.aws/config and ~/.aws/credentials")
        return config
    if not any(key in config for key in ("region", "aws_region", "default_region", "aws_default_region")) and not (
        os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    ):
        config |= _one(profile, "region", "region")
    if not any("endpoint" in key for key in config) and not any(key.startswith("AWS_ENDPOINT") for key in os.environ):
        config |= _one(profile, "endpoint_url", "endpoint")
    if not any(key in config for key in _GIVEN) and (asked or not any(os.environ.get(key) for key in _ENVIRONMENT)):
        config |= _credentials(profile, name, place)
    return config


def _credentials(profile: Mapping[str, str], name: str, place: str) -> dict[str, Any]:
    if "aws_access_key_id" in profile:
        return {ours: profile[theirs] for theirs, ours in _KEYS.items() if theirs in profile}
    if not any(key in profile for key in _DYNAMIC):
        return {}
    try:
        import boto3
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ImportError as exc:
        fact = f"the AWS profile {name!r} signs in or assumes a role, which needs boto3"
        raise MissingExtraError(place, fact, "pip install boto3, or give keys") from exc
    try:
        return {"credential_provider": Boto3CredentialProvider(boto3.Session(profile_name=name))}
    except Exception as exc:  # boto raises many kinds: for an expired login, a file, a program
        raise UsageError(place, f"the AWS profile {name!r} gives no credentials ({exc})", "sign in again") from exc


def _one(profile: Mapping[str, str], theirs: str, ours: str) -> dict[str, Any]:
    return {ours: profile[theirs]} if profile.get(theirs) else {}


def _profile(name: str) -> dict[str, str] | None:
    """The entries for a profile in both files; the credentials file takes precedence. None if neither has it."""
    found: dict[str, str] | None = None
    for variable, path, section in (
        ("AWS_CONFIG_FILE", "~/.aws/config", name if name == "default" else f"profile {name}"),
        ("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials", name),
    ):
        file = os.path.expanduser(os.environ.get(variable) or path)
        parser = configparser.ConfigParser(interpolation=None, default_section="", strict=False)
        try:
            parser.read(file, "utf-8")
        except (configparser.Error, UnicodeDecodeError) as exc:
            raise UsageError(file, f"not a file of AWS profiles ({type(exc).__name__})", "fix it") from exc
        if parser.has_section(section):
            found = (found or {}) | dict(parser[section])
    return found
