"""`journal` and `explain` on a file that a server has used."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from sharesrv.cli import app_for
from sharesrv.domain.record_checks import GrantRecord
from sharesrv.domain.records import WriteRecords
from sharesrv.errors import Trouble
from sharesrv.store.sqlite.connection import open_database
from tests.wire import GUEST, OWNER, fill, write_records

ENDS_MS = 4_102_444_800_000  # 2100


@pytest.fixture
def house(database: Path) -> Path:
    fill(database, grants=[GrantRecord("lamp", GUEST, 3, "", ENDS_MS), GrantRecord("bridge", GUEST, 0, "", 0)])
    return database


def run(path: Path, *words: str) -> Result:
    return CliRunner().invoke(
        app_for(words), [*words, "--set", f"database.url=sqlite:///{path}"], catch_exceptions=False
    )


def test_the_journal_is_printed_in_columns(house: Path) -> None:
    heading, *rows = run(house, "journal").stdout.splitlines()
    assert heading.split() == ["id", "at", "share", "device", "sharer", "sharee", "from", "to", "cause", "by", "door"]
    assert [row.split()[3:] for row in rows] == [
        ["lamp", OWNER, GUEST, "-", "active", "-", "import", "import"],
        ["bridge", OWNER, GUEST, "-", "active", "-", "import", "import"],
    ]


@pytest.mark.parametrize(
    ("options", "count"),
    [
        (["--device", "lamp"], 1),
        (["--account", GUEST], 2),
        (["--account", "other"], 0),
        (["--after", "1"], 1),
        (["--limit", "1"], 1),
        (["--share", "1"], 0),
    ],
    ids=str,
)
def test_the_journal_is_filtered(house: Path, options: list[str], count: int) -> None:
    assert len(run(house, "journal", *options).stdout.splitlines()) == 1 + count


@pytest.mark.parametrize("option", ["--share", "--after", "--limit"])
def test_a_number_that_is_too_large_is_a_wrong_option(house: Path, option: str) -> None:
    assert run(house, "journal", option, str(2**63 - 1)).exit_code == 0
    ended = run(house, "journal", option, str(2**63))
    assert ended.exit_code == 2
    assert f"Invalid value for '{option}'" in ended.stderr


def test_a_whole_journal_is_verified_and_its_head_is_found_again(house: Path) -> None:
    whole, chain = run(house, "journal", "verify").stdout.splitlines()
    assert whole == "2 rows, 1 chains: whole"
    assert chain.startswith("chain 0  rows 1 to 2  head ")
    head = chain.rpartition(" ")[2]
    assert run(house, "journal", "verify", "--head", head.upper()).exit_code == 0
    ended = run(house, "journal", "verify", "--head", head, "--head", "0" * 64)
    assert (ended.exit_code, ended.stdout.splitlines()[0]) == (1, f"the head {'0' * 64} is in no chain")


def test_rows_that_were_changed_are_named_one_a_line_up_to_twenty(house: Path) -> None:
    grants = [GrantRecord("lamp", GUEST, permit, "", ENDS_MS) for permit in range(3)] * 10
    for grant in grants:
        write_records(house, WriteRecords(grants=[grant], imported=True))
    with closing(open_database(house)) as connection:
        connection.execute("UPDATE journal SET by = 'other' WHERE id > 1")
    ended = run(house, "journal", "verify")
    lines = ended.stdout.splitlines()
    assert ended.exit_code == 1
    assert lines[0] == "row 2 was changed, or the hash of the row before it in chain 0"
    assert lines[20:22] == ["and 11 more", "32 rows, 1 chains: 31 faults"]


def test_a_head_that_is_no_hash_is_a_wrong_option(house: Path) -> None:
    ended = run(house, "journal", "verify", "--head", "abc")
    assert (ended.exit_code, "64 hexadecimal digits" in ended.stderr) == (2, True)


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (("--head", "0" * 64), "--head"),
        (("verify", "--share", "1"), "--share"),
        (("verify", "--after", "1"), "--after"),
    ],
)
def test_an_option_that_would_count_for_nothing_is_wrong(house: Path, words: tuple[str, ...], option: str) -> None:
    ended = run(house, "journal", *words)
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert f"Invalid value for '{option}'" in ended.stderr


def test_a_journal_that_is_not_there_cannot_be_verified(database: Path) -> None:
    with pytest.raises(Trouble, match="there is no such file"):
        run(database, "journal", "verify")


@pytest.mark.parametrize("words", [("journal", "--device", "\udcff"), ("explain", "\udcff", "lamp", "query")], ids=str)
def test_words_that_are_not_utf_8_are_trouble(house: Path, words: tuple[str, ...]) -> None:
    with pytest.raises(Trouble, match="not UTF-8"):
        run(house, *words)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((OWNER, "lamp", "update"), "allowed; decided by: owner"),
        ((GUEST, "lamp", "update"), "allowed; decided by: grant, share"),
        ((GUEST, "lamp", "query"), "permit 3, until 2100-01-01T00:00:00.000Z"),
        (
            (GUEST, "lamp", "timers.delete"),
            "not allowed (403: lacks 4 (delete timers); has 3); decided by: permit",
        ),
        (
            (GUEST, "lamp", "share"),
            "not allowed (403: the account is not the owner of the device)\n",
        ),
        ((GUEST, "sub-1", "query"), "decided by: bridge"),
        ((GUEST, "sub-1", "update"), "of the bridge bridge"),
        (("other", "lamp", "update"), "not allowed (403: no grant on the device)\n"),
        (("nobody", "lamp", "update"), "not allowed (403: no such account)\n"),
        ((OWNER, "none", "update"), "not allowed (403: no such device)\n"),
    ],
    ids=str,
)
def test_explain_says_what_decides(house: Path, words: tuple[str, ...], said: str) -> None:
    assert said in run(house, "explain", *words).stdout
