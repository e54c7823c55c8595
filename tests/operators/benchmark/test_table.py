from dataclasses import replace

import pytest

from operators import InputError
from operators.benchmark.table import COLUMNS, TimingTable, code_digest, hardware_name, key
from tests.operators.benchmark.cases import ROW

BARE = replace(ROW, arm='bare, with "quotes"', reference=None, ratio=None, ratio_low=None, ratio_high=None, error=None)


def test_rows_come_back_to_the_last_bit(tmp_path):
    path = tmp_path / "deep/er/t.csv"
    table = TimingTable(path)
    for row in (ROW, BARE):
        table.append(row)
    assert TimingTable(path).rows == [ROW, BARE]
    assert path.read_text().splitlines()[0] == ",".join(COLUMNS)


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_a_row_cut_off_by_a_kill_is_dropped(tmp_path, cut):
    path = tmp_path / "t.csv"
    table = TimingTable(path)
    table.append(ROW)
    table.append(BARE)
    path.write_bytes(path.read_bytes()[:-cut])
    again = TimingTable(path)
    assert again.rows == [ROW]
    again.append(BARE)
    assert TimingTable(path).rows == [ROW, BARE]


def test_a_header_cut_off_is_written_again(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("run,ut")
    TimingTable(path).append(ROW)
    assert TimingTable(path).rows == [ROW]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "is not a table of this benchmark"),
        (",".join(COLUMNS) + "\n1,2\n", f"line 2 has 2 entries instead of {len(COLUMNS)}"),
        (",".join(COLUMNS) + "\n" + ",".join("x" * len(COLUMNS)) + "\n", "threads='x', which is no int"),
    ],
)
def test_another_file_is_refused(tmp_path, text, message):
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        TimingTable(path)
    assert path.read_text() == text


def test_a_file_in_place_of_the_directory_is_refused(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(InputError, match="cannot be used"):
        TimingTable(tmp_path / "out" / "t.csv")


def test_settings_and_versions_tell_rows_apart_and_measurements_do_not():
    assert key(ROW) == key(replace(ROW, run="b", utc="later", seconds=9.0, samples=3, ratio=None))
    for change in ({"code": "x"}, {"torch": "x"}, {"threads": 9}, {"repeats": 9}, {"reference": "x"}, {"work": "x"}):
        assert key(ROW) != key(replace(ROW, **change))


def test_names_are_fit_for_files():
    assert set(hardware_name("cpu")) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert code_digest() == code_digest()
    assert len(code_digest()) == 10
