from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardkit.cli.config_file import Setting, load_config
from shardkit.errors import UsageError
from shardkit.options.fields import Help, OptionField
from shardkit.units import UNITS, format_bytes, parse_bytes

SETTINGS = {
    "max_bytes": Setting("size"),
    "workers": Setting("int", option=OptionField("workers", "int", None, Help("Processes."), least=1)),
    "shuffle": Setting("bool"),
    "check": Setting("str", ("header", "full")),
    "ext": Setting("list"),
    "classes": Setting("path"),
}


@pytest.fixture
def load(tmp_path: Path) -> Any:
    def load(text: str | bytes) -> dict[str, Any]:
        path = tmp_path / "pack.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load_config(path, SETTINGS).values

    return load


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (1, 1),
        (256_000_000, 256_000_000),
        ("4096", 4096),
        ("64MiB", 64 << 20),
        ("64 MiB", 64 << 20),
        (" 64mib ", 64 << 20),
        ("1GB", 10**9),
        ("1.5GB", 1_500_000_000),
        ("0.5KiB", 512),
        ("2kB", 2000),
        ("1TiB", 1 << 40),
        ("7B", 7),
    ],
)
def test_sizes_in_words_are_understood(text: int | str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize(
    "text",
    ["", "MB", "12 parsecs", "-1MB", "0", "1e9", "1_000", "0.5B", "1.0001kB", "1,5GB", "64MiB!", "٣MB", "inf", "nan"],
)
def test_text_that_is_no_size_is_refused_with_the_option_named(text: str) -> None:
    with pytest.raises(UsageError, match=r"^--max-bytes: .*; give bytes, or a number with kB") as caught:
        parse_bytes(text, place="--max-bytes")
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("value", [0, -5, True, None, 1.5, b"1MB", [1]])
def test_a_value_that_is_no_size_is_refused(value: Any) -> None:
    with pytest.raises(UsageError, match=r"^max_bytes: "):
        parse_bytes(value)


@pytest.mark.parametrize(
    "letter",
    ["k", "M", "g", "T"],
)
def test_a_bare_letter_is_refused_and_both_meanings_are_named(letter: str) -> None:
    big = letter.upper()
    with pytest.raises(UsageError, match=f"'64{letter}' is ambiguous; write 64{big}B or 64{big}iB"):
        parse_bytes(f"64{letter}")


@given(st.integers(1, 10**6), st.sampled_from(sorted(UNITS)))
def test_a_number_and_its_unit_multiply(number: int, unit: str) -> None:
    assert parse_bytes(f"{number}{unit}") == parse_bytes(f"{number} {unit.upper()}") == number * UNITS[unit]


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (9_994, "9.99 kB"),
        (9_996, "10.0 kB"),
        (99_960, "100 kB"),
        (999_499, "999 kB"),
        (999_501, "1.00 MB"),
        (256_000_000, "256 MB"),
        (1_234_000_000_000, "1.23 TB"),
        (5 * 10**15, "5000 TB"),
    ],
)
def test_sizes_are_shown_with_three_digits(count: int, text: str) -> None:
    assert format_bytes(count) == text


@given(st.integers(0, 10**15))
def test_a_shown_size_reads_back_within_half_a_percent(count: int) -> None:
    shown = format_bytes(count)
    back = parse_bytes(shown) if count else 0
    assert abs(back - count) <= 0.005 * count + 0.5


def test_a_file_gives_its_values_in_their_types(load: Any, tmp_path: Path) -> None:
    text = "max_bytes: 1MiB\nworkers: 2\nshuffle: no\ncheck: full\next: [jpg, png]\nclasses: names.txt\n"
    assert load(text) == {
        "max_bytes": 1 << 20,
        "workers": 2,
        "shuffle": False,
        "check": "full",
        "ext": ["jpg", "png"],
        "classes": tmp_path / "names.txt",
    }


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "workers:\n", "workers: null\nshuffle: ~\n", "{}"])
def test_a_key_without_a_value_is_as_if_absent(load: Any, text: str) -> None:
    assert load(text) == {}


def test_one_word_is_a_list_of_one(load: Any) -> None:
    assert load("ext: jpg") == {"ext": ["jpg"]}


def test_an_absolute_path_stays_as_it_is(load: Any) -> None:
    assert load("classes: /data/names.txt") == {"classes": Path("/data/names.txt")}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("workers: 2\nwrokers: 3", r":2: no option is named 'wrokers'; did you mean workers\?"),
        ("max-bytes: 1MB", r":1: no option is named 'max-bytes'; did you mean max_bytes\?"),
        ("colour: red", r":1: no option is named 'colour'; the options are max_bytes, workers, "),
        ("1: 2", r":1: no option is named '1'"),
        ("[a]: 2", r":1: no option is named a list"),
        ("<<: {workers: 1}", r":1: no option is named '<<'"),
        ("workers: 1\n\nworkers: 2", r":3: workers is given twice, first in line 1; leave one of them out"),
        ("shuffle: true\nworkers: two", r":2: workers: 'two' is not a whole number; give at least 1"),
        ("workers: true", r":1: workers: 'true' is not a whole number"),
        ("workers: 1.5", r":1: workers: '1.5' is not a whole number"),
        ("shuffle: 1", r":1: shuffle: '1' is not true or false; give one of these"),
        ("shuffle: 'yes'", r":1: shuffle: 'yes' is not true or false"),
        ("check: half", r":1: check: 'half' is not one of header, full; choose one of these"),
        ("ext: [jpg, no]", r":1: ext: a list is not a list of words; give one such as"),
        ("ext: []", r":1: ext: a list is not a list of words"),
        ("ext: [[jpg]]", r":1: ext: a list is not a list of words"),
        ("ext:\n  jpg: 1", r":2: ext: a mapping is not a list of words"),
        ("classes: [a, b]", r":1: classes: a list is not the path of a file"),
        ("max_bytes: big", r":1: max_bytes: 'big' is not a size"),
        ("max_bytes: 1.5", r":1: max_bytes: '1.5' is not a size; give one such as 256MB"),
        ("shuffle: true\nworkers: 0", r":2: workers: 0 is too small; give at least 1"),
        ("check: ful", r":1: check: 'ful' is not one of header, full; did you mean full\?"),
        ("max_bytes: -1", r":1: max_bytes: -1 is not a whole number of bytes"),
        ("workers: 2024-13-45", r":1: workers: '2024-13-45' is not a whole number"),
        ("workers: !!int x", r":1: workers: 'x' is not a whole number"),
        ("workers: !!python/object/apply:os.getcwd []", r":1: workers: a list is not a whole number"),
        ("check: !!python/name:os.getcwd ''", r":1: check: '' is not text"),
        ("- jpg\n- png", r":1: the file is not a mapping"),
        ("just text", r":1: the file is not a mapping"),
        ("workers: 1\n  shuffle: 2", r":2: this is not YAML"),
        ("workers: {", r":1: this is not YAML|:2: this is not YAML"),
        ("workers: 1\n---\nworkers: 2", r":2: this is not YAML"),
        ("workers: *other", r":1: this is not YAML"),
        ("workers: \x00", r"this is not YAML"),
        (b"workers: \xff", r"at byte 9: the configuration file is not UTF-8"),
    ],
)
def test_what_is_wrong_in_a_file_is_told_with_its_place(load: Any, text: str | bytes, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        load(text)
    assert "pack.yaml" in str(caught.value)


def test_a_deeply_nested_file_is_refused(load: Any) -> None:
    with pytest.raises(UsageError, match="is not"):
        load("ext: " + "[" * 5000 + "]" * 5000)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"gone\.yaml: there is no such configuration file; check the path given as `config`"
    ):
        load_config(tmp_path / "gone.yaml", SETTINGS)
