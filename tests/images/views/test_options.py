"""The values of decode(views=), and its errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import shardkit
from shardkit.errors import UsageError
from shardkit.images.crops import MAX_SIDE
from shardkit.images.options import DecodeOptions
from shardkit.images.views.options import MAX_VIEWS, View


@pytest.mark.parametrize(
    "given",
    [
        View(2, 224),
        (2, 224),
        [2, [224, 224]],
        (np.int64(2), (224, 224)),
        {"count": 2, "size": 224},
        {"count": 2, "size": (224, 224), "scale": None},
    ],
    ids=["a View", "a tuple", "a list", "NumPy's int", "a mapping", "a mapping with None"],
)
def test_a_view_may_be_written_in_several_ways(given: Any) -> None:
    assert DecodeOptions(views={"global": given}) == DecodeOptions(views={"global": View(2, (224, 224))})


def test_views_are_random_crops_whether_or_not_that_is_said() -> None:
    for crop in (None, "random"):
        options = DecodeOptions(views={"a": (1, 8)}, crop=crop)  # type: ignore[arg-type]
        assert options.random and options.moves_pixels and options.cropped == "random"


def test_a_view_has_the_scale_and_ratio_of_decode_unless_it_has_its_own() -> None:
    own = View(1, 8, scale=(0.1, 0.2))
    options = DecodeOptions(views={"a": (1, 8), "b": own}, scale=(0.3, 0.4), ratio=(1, 2))
    assert options.views is not None
    of = {name: options.of_view(view).box_range for name, view in options.views.items()}  # type: ignore[arg-type]
    assert (of["a"].scale, of["a"].ratio) == ((0.3, 0.4), (1, 2))
    assert (of["b"].scale, of["b"].ratio) == ((0.1, 0.2), (1, 2))


@pytest.mark.parametrize(
    ("views", "message"),
    [
        ({}, "views: {} is not a dict of at least one name"),
        ((2, 224), r"views: \(2, 224\) is not a dict"),
        ({1: (2, 224)}, "views: 1 is not a name"),
        ({"": (2, 224)}, "views: '' is not a name"),
        ({"a": 224}, r"views: 'a': 224 is not \(count, size\); give .*shardkit.View"),
        ({"a": (2, 224, (0.1, 1))}, r"views: 'a': .* is not \(count, size\)"),
        ({"a": (0, 224)}, f"views: 'a': a count of 0 is not a whole number from 1 to {MAX_VIEWS:,}"),
        ({"a": (-1, 224)}, "views: 'a': a count of -1"),
        ({"a": (True, 224)}, "views: 'a': a count of True"),
        ({"a": (2.0, 224)}, "views: 'a': a count of 2.0"),
        ({"a": (MAX_VIEWS + 1, 224)}, "views: 'a': a count of"),
        ({"a": (MAX_VIEWS, 8), "b": (1, 8)}, f"views: {MAX_VIEWS + 1:,} views of each image are more than"),
        ({"a": (2, 0)}, f"views: 'a': a size of 0 is neither a number of pixels nor .* 1 to {MAX_SIDE:,}"),
        ({"a": (2, None)}, "views: 'a': a size of None"),
        ({"a": (2, (8, 8, 3))}, "views: 'a': a size of"),
        ({"a": (2, MAX_SIDE + 1)}, "views: 'a': a size of"),
        ({"a": {"count": 2}}, "views: 'a': it has no size"),
        ({"a": {}}, "views: 'a': it has no count and no size"),
        ({"a": {"count": 2, "size": 8, "scales": (0.1, 1)}}, "views: 'a': 'scales' is not one of .* 'scale'"),
        ({"a": {"count": 2, "size": 8, 3: 4}}, "views: 'a': 3 is not one of .*; omit it"),
        ({"a": {"count": 2, "size": 8, "scale": (0, 1)}}, r"views: 'a': a scale of \(0, 1\) is not"),
        ({"a": {"count": 2, "size": 8, "scale": (0.5, 2)}}, "views: 'a': a scale of .* <= 1"),
        ({"a": {"count": 2, "size": 8, "ratio": (2, 1)}}, r"views: 'a': a ratio of \(2, 1\) is not"),
    ],
    ids=map(str, range(23)),
)
def test_impossible_views_are_refused(views: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        DecodeOptions(views=views)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 224}, "size: each view has its own size; omit size=, or views="),
        ({"crop": "center"}, "crop: 'center' can't be combined with views, which are random crops; omit crop="),
        ({"crop": "resize"}, "crop: 'resize' can't be combined with views"),
        ({"crop": "pad", "padding": 4}, "crop: 'pad' can't be combined with views"),
        ({"padding": 4}, "padding: a crop of 'random' does not use it"),
        ({"fill": 4}, "fill: a crop of 'random' does not use it"),
    ],
    ids=["size", "center", "resize", "pad", "padding", "fill"],
)
def test_what_views_do_not_go_with_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        DecodeOptions(views={"a": (1, 8)}, **options)


def test_a_view_checks_itself() -> None:
    with pytest.raises(UsageError, match="views: a count of 0"):
        shardkit.View(0, 224)
    with pytest.raises(UsageError, match="views: a size of 'big'"):
        shardkit.View(1, "big")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"View.*: got an unexpected keyword argument 'sclae'; did you mean `scale`"):
        shardkit.View(1, 224, sclae=(0.1, 1))  # type: ignore[call-arg]
