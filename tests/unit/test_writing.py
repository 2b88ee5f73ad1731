"""What is written beside and moved, and who may write."""

import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from geopeft_nb.errors import GeopeftError
from geopeft_nb.writing import held, written_beside


def test_a_file_is_replaced_once_it_is_whole_with_what_lies_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "new" / "a.txt"
    for text in ("old", "水"):
        with written_beside(file) as part:
            part.write_text(text, encoding="utf-8")
            part.with_name("b.txt").write_text(text, encoding="utf-8")
            assert text == "old" or file.read_text("utf-8") == "old"
    names = sorted(path.name for path in file.parent.iterdir())
    assert names == ["a.txt", "b.txt"] and file.read_text("utf-8") == "水"


@pytest.mark.parametrize("error", [OSError(28, "full"), RuntimeError("cut"), KeyboardInterrupt()])
def test_what_fails_is_said_in_one_kind_of_error_and_leaves_the_old(
    tmp_path: Path, error: BaseException
) -> None:
    (tmp_path / "a").write_text("old", encoding="utf-8")
    wanted = KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else GeopeftError
    with pytest.raises(wanted) as caught, written_beside(tmp_path / "a") as part:
        part.write_text("half", encoding="utf-8")
        raise error
    assert wanted is KeyboardInterrupt or isinstance(caught.value, OSError)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text("utf-8") == "old"


def test_who_holds_a_file_may_hold_it_again_and_others_are_told(tmp_path: Path) -> None:
    def ask() -> str:
        try:
            with held(tmp_path / "a"):
                return ""
        except GeopeftError as error:
            return str(error)

    with ThreadPoolExecutor(1) as other:
        with held(tmp_path / "a"), held(tmp_path / "a"):
            said = other.submit(ask).result()
        assert re.search(rf"a is in use by process {os.getpid()} on .+", said)
        theirs = {".new-a-x1", ".new-geopeft_nb-abcd_123-a-b~", ".new-geopeft_nb-abcd_123-b-a~"}
        for name in (".new-geopeft_nb-abcd_123-a~", *theirs):  # one left by who was killed
            (tmp_path / name).mkdir()
        assert other.submit(ask).result() == ""
    assert {path.name for path in tmp_path.iterdir()} == {".a.gp.lock", *theirs}
