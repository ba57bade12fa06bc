"""Oracle: what is on the disk after a failure at each step, and after a process was killed in the middle of writing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from strobe.core.atomic import replacing, replacing_directory, write_bytes, write_text


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_what_was_written_is_there_and_nothing_else(tmp_path: Path):
    write_bytes(tmp_path / "a.bin", b"\x00\xff")
    write_text(tmp_path / "b.txt", "·\r\n")
    assert (tmp_path / "a.bin").read_bytes() == b"\x00\xff"
    assert (tmp_path / "b.txt").read_bytes() == "·\r\n".encode()
    assert names(tmp_path) == ["a.bin", "b.txt"]


def test_an_error_leaves_the_old_file_and_no_temporary(tmp_path: Path):
    file = tmp_path / "a.txt"
    file.write_text("old")
    with pytest.raises(KeyError), replacing(file) as temporary:
        temporary.write_text("half of the n")
        raise KeyError
    assert file.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_the_old_file_is_whole_until_the_end(tmp_path: Path):
    file = tmp_path / "a.txt"
    file.write_text("old")
    with replacing(file) as temporary:
        temporary.write_text("new")
        assert file.read_text() == "old"
        assert temporary.parent == tmp_path
    assert file.read_text() == "new"


def test_a_killed_process_leaves_the_old_file(tmp_path: Path):
    file = tmp_path / "a.txt"
    file.write_text("old")
    code = (
        "import os, signal, sys\nfrom strobe.core.atomic import replacing\n"
        "with replacing(sys.argv[1]) as t:\n    t.write_text('half')\n    os.kill(os.getpid(), signal.SIGKILL)"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code, str(file)], cwd=root, check=False)
    assert done.returncode == -9
    assert file.read_text() == "old"


def test_writing_nothing_is_an_error(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="nothing was written"), replacing(tmp_path / "a.txt"):
        pass
    assert names(tmp_path) == []


def test_permissions_are_the_users(tmp_path: Path):
    (tmp_path / "plain").touch()
    write_text(tmp_path / "new", "x")
    assert (tmp_path / "new").stat().st_mode == (tmp_path / "plain").stat().st_mode
    (tmp_path / "new").chmod(0o600)
    write_text(tmp_path / "new", "y")
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_through_a_link_the_file_is_replaced_and_the_link_stays(tmp_path: Path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"


def test_a_wrong_place_is_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="no folder"):
        write_text(tmp_path / "absent" / "a.txt", "x")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        write_text(tmp_path, "x")
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="is a file"), replacing_directory(tmp_path / "file"):
        pass


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path):
    folder = tmp_path / "model"
    for content in ("one", "two"):
        with replacing_directory(folder) as temporary:
            (temporary / content).mkdir()
            (temporary / content / "weights").write_text(content)
    assert names(tmp_path) == ["model"]
    assert names(folder) == ["two"]
    assert (folder / "two" / "weights").read_text() == "two"


def test_an_error_leaves_the_old_folder(tmp_path: Path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "weights").write_text("old")
    with pytest.raises(KeyError), replacing_directory(folder) as temporary:
        (temporary / "weights").write_text("half")
        raise KeyError
    assert names(tmp_path) == ["model"]
    assert (folder / "weights").read_text() == "old"


def test_a_folder_that_cannot_be_put_in_place_is_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "weights").write_text("old")
    rename = os.replace

    def fails_on_the_new_one(source: Path, target: Path) -> None:
        if str(source).endswith(".part"):
            raise OSError("disk gone")
        rename(source, target)

    monkeypatch.setattr(os, "replace", fails_on_the_new_one)
    with pytest.raises(OSError, match="disk gone"), replacing_directory(folder) as temporary:
        (temporary / "weights").write_text("new")
    assert (folder / "weights").read_text() == "old"
    assert names(tmp_path) == ["model"]
