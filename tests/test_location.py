"""Places: paths, URLs and brace ranges."""

from __future__ import annotations

from pathlib import Path

import pytest

from shardkit.errors import UsageError
from shardkit.location import expand_braces, locate


@pytest.mark.parametrize(
    ("pattern", "expanded"),
    [
        ("a.tar", ["a.tar"]),
        ("t-{000..002}.tar", ["t-000.tar", "t-001.tar", "t-002.tar"]),
        ("t-{8..10}.tar", ["t-8.tar", "t-9.tar", "t-10.tar"]),
        ("t-{2..0}", ["t-2", "t-1", "t-0"]),
        ("{a,b}/{0..1}", ["a/0", "a/1", "b/0", "b/1"]),
        ("x{a,{1..2}}", ["xa", "x1", "x2"]),
        ("no{braces", ["no{braces"]),
        ("a{b}c", ["a{b}c"]),
    ],
)
def test_braces_are_expanded_as_shells_do(pattern: str, expanded: list[str]) -> None:
    assert expand_braces(pattern) == expanded


def test_a_brace_range_beyond_all_measure_is_refused() -> None:
    with pytest.raises(UsageError, match="ten million"):
        expand_braces("t-{0..99999999999}.tar")


def test_a_path_is_local_and_a_url_has_a_scheme() -> None:
    assert locate("shards/train").is_local
    assert str(locate("s3://bucket/train")) == "s3://bucket/train"
    assert locate("S3://bucket/train").scheme == "s3"
    assert locate("file:///data/train").path == "/data/train"
    assert locate(Path("a") / "b").path == "a/b"


def test_children_and_siblings_are_named_in_their_folder() -> None:
    assert str(locate("s3://bucket/train.json").sibling("train.parquet")) == "s3://bucket/train.parquet"
    assert locate("shards/train.json").sibling("x").path == "shards/x"
    assert locate("train.json").sibling("x").path == "x"
    assert str(locate("s3://bucket/a").child("b")) == "s3://bucket/a/b"


@pytest.mark.parametrize("value", ["", "a\0b"])
def test_what_can_be_no_path_is_refused(value: str) -> None:
    with pytest.raises(UsageError):
        locate(value)


def test_the_query_of_a_web_server_belongs_to_the_object_and_is_never_shown() -> None:
    url = "https://host/train-000000.tar?X-Amz-Signature=abc%2F1&X-Amz-Credential=a/b"
    place = locate(url)
    assert (place.name, place.url) == ("train-000000.tar", url)
    assert place.parent.child(place.name) == place
    assert locate(place.url) == place
    assert "abc" not in str(place) + repr(place)
    assert locate(f"slow+{url}").name == "train-000000.tar"


@pytest.mark.parametrize("url", ["s3://bucket/a?b=c.tar", "https://host/train-?.tar", "gs://bucket/a?b=c"])
def test_a_question_mark_that_begins_no_query_is_a_part_of_the_name(url: str) -> None:
    assert locate(url).query == ""
    assert locate(url).url == url
