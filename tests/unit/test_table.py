"""Tables: one model, fitted to a width, printed and written as Markdown."""

import pytest

from kdas_edge.console import print_table, table
from kdas_edge.table import (
    NONE,
    Cell,
    Column,
    Table,
    build,
    count,
    fit,
    markdown,
    number,
    transposed,
    wrap,
)

COLUMNS = (
    Column("model"),
    Column("p50 ms", numeric=True),
    Column("p90 ms", numeric=True, rank=2),
    Column("Dice Kvasir", numeric=True, rank=1),
)
TABLE = Table(
    "latency",
    COLUMNS,
    ((Cell("student-of-a-long-name"), number(33.08), number(40.5), number(0.8674, 3)),),
)


def shown_headings(width: int) -> list[str]:
    layout = fit(TABLE, width)
    assert layout is not None
    assert sum(3 + w for w in layout.widths) + 1 <= width
    return [COLUMNS[i].heading for i in layout.columns]


def test_columns_of_the_highest_rank_are_left_out_first() -> None:
    assert shown_headings(80) == ["model", "p50 ms", "p90 ms", "Dice Kvasir"]
    assert shown_headings(30) == ["model", "p50 ms", "Dice Kvasir"]
    assert shown_headings(20) == ["model", "p50 ms"]
    assert fit(TABLE, 12) is None


def test_a_number_is_never_broken() -> None:
    for width in range(18, 90):
        layout = fit(TABLE, width)
        if layout is None:
            continue
        for i, given in zip(layout.columns, layout.widths, strict=True):
            if COLUMNS[i].numeric:
                assert given >= len(TABLE.rows[0][i].text)


def test_rows_are_transposed_where_the_first_columns_do_not_fit() -> None:
    (block,) = transposed(TABLE)
    assert [cell.text for cell in block.rows[0]] == ["p50 ms", "33.08"]
    assert block.columns[1].heading == "student-of-a-long-name"


@pytest.mark.parametrize("width", [200, 80, 60, 40, 24, 12])
def test_the_width_of_the_variable_columns_holds_without_a_terminal(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    print_table(TABLE)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= width
    assert any("33.08" in line for line in lines)
    if 20 <= width < 40:
        assert "no room for" in " ".join(lines)


def test_words_are_broken_between_their_parts_and_only_then_inside() -> None:
    assert wrap("openvino:CPU:threads=1", 12) == ["openvino:", "CPU:threads=", "1"]
    assert wrap("kvasir-mobilenet small", 12) == ["kvasir-", "mobilenet", "small"]
    assert wrap("abcdef", 4) == ["abcd", "ef"]
    assert wrap("-0.003 (-0.010 to 0.004)", 10) == ["-0.003", "(-0.010 to", "0.004)"]


def test_a_column_of_numbers_is_aligned_right_by_its_values(
    capsys: pytest.CaptureFixture[str],
) -> None:
    table("t", ["name", "n"], [["a", 3], ["b", 100], ["c", NONE]])
    assert "│ a    │   3 │" in capsys.readouterr().out


def test_optional_columns_that_are_empty_are_left_out() -> None:
    made = build(
        "t",
        [
            (Column("name"), lambda row: Cell(row)),
            (Column("always"), lambda row: NONE),
            (Column("never", rank=1), lambda row: NONE),
            (Column("length", rank=1), lambda row: count(len(row))),
        ],
        ["a", "bb"],
    )
    assert [column.heading for column in made.columns] == ["name", "always", "length"]
    assert [cell.value for row in made.rows for cell in row[2:]] == [1, 2]


def test_names_cannot_become_markup_in_markdown() -> None:
    hostile = "<script>a|b</script> [x](http://a) `c`\nnext"
    text = markdown(
        Table("t", (Column("model"), Column("n", numeric=True)), ((Cell(hostile), count(1)),))
    )
    first, rule, row = text.splitlines()
    assert (first, rule) == ("| model | n |", "|---|---:|")
    assert row == r"| \<script\>a\|b\</script\> \[x\](http://a) \`c\` next | 1 |"
