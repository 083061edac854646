import pytest

from pwm_jax.report import records


def test_lines_written_are_lines_read(tmp_path):
    path = tmp_path / "rows.jsonl"
    records.write_text(path, "".join(records.to_line(record) for record in ({"a": 1}, {"a": 2.5, "b": "ü"})))
    assert records.read_lines(path) == [(1, {"a": 1}), (2, {"a": 2.5, "b": "ü"})]


@pytest.mark.parametrize("bad", ['{"a": NaN}', '{"a": -Infinity}', '{"a": 1e999}', '{"a": 1', "[1, 2]", "3"])
def test_a_bad_line_is_named_by_file_and_number(tmp_path, bad):
    path = tmp_path / "rows.jsonl"
    path.write_text(f'{{"a": 1}}\n\n{bad}\n')
    with pytest.raises(records.RecordError, match=r"rows\.jsonl, line 3"):
        records.read_lines(path)


def test_an_unfinished_last_line_is_left_out_only_on_request(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n{"a": ')
    assert records.read_lines(path, drop_partial_tail=True) == [(1, {"a": 1})]
    with pytest.raises(records.RecordError, match="line 2"):
        records.read_lines(path)


def test_writing_non_finite_numbers_leaves_the_old_file(tmp_path):
    path = tmp_path / "x.json"
    records.write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="JSON compliant"):
        records.write_json(path, {"a": float("nan")})
    assert records.read_json(path) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_bytes_that_are_not_text_are_an_error_of_the_file(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\xff\xfe\n")
    with pytest.raises(records.RecordError, match=r"rows\.jsonl: not UTF-8"):
        records.read_lines(path)
    with pytest.raises(records.RecordError, match=r"rows\.jsonl"):
        records.read_json(path)


def test_what_a_killed_writer_left_is_removed_and_nothing_else(tmp_path, monkeypatch):
    (tmp_path / "points").mkdir()
    for name in ("rows.jsonl", ".hidden", "a.partial-b"):
        (tmp_path / "points" / name).write_text("kept")
    with monkeypatch.context() as killed:
        for name in ("replace", "unlink"):
            killed.setattr(records.os, name, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            records.write_json(tmp_path / "points" / "timing.json", {"a": 1})
    assert len(list((tmp_path / "points").iterdir())) == 4
    records.remove_partial(tmp_path)
    assert sorted(path.name for path in (tmp_path / "points").iterdir()) == [".hidden", "a.partial-b", "rows.jsonl"]
