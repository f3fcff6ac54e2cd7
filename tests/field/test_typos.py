"""Keys that nobody knows are named, with the one that was meant; a cluster of one machine is closed to others."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cosma.units import format_size, parse_size
from tests.field.commands import cosma


@pytest.mark.parametrize(
    ("text", "arguments", "hint"),
    [
        ('scratchpad = "1MiB"\nalignmnt = 64\n', ("compile", "m.onnx", "--accelerator", "./a.toml"), "'alignment'"),
        ('back_end = "cp-sat"\nthreds = 1\n', ("compile", "d.json", "--solver", "a.toml"), "'threads'"),
        ('modles = ["a"]\nstrategies = ["e1"]\n', ("sweep", "a.toml"), "'models'"),
        # Of the table where it stands, not of another one.
        ('models = ["a"]\nstrategies = [{ seed = 1 }]\n', ("sweep", "a.toml"), ""),
        ('models = ["a"]\nstrategies = [{ efort = 1 }]\n', ("sweep", "a.toml"), "'effort'"),
    ],
)
def test_a_typo_is_named_with_what_was_meant(
    text: str, arguments: tuple[str, ...], hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cosma.graph.json_format import save_graph
    from tests.planning import diamond

    monkeypatch.chdir(tmp_path)
    save_graph(diamond(), "d.json")
    Path("a.toml").write_text(text)
    more = ("--scratchpad", "1KiB", "--strategy", "exact") if "--solver" in arguments else ()
    done = cosma(*arguments, *more)
    assert done.code == 2, done.err
    assert ("did you mean" in done.err) is bool(hint)
    assert hint in done.err
    assert done.err.count("\n") == 1


@pytest.mark.parametrize(
    "text",
    ["1e99999999", "1e4000", "nan", "inf", "-1", "1e-5", "1e-99999999", "9" * 5000, "1e" + "9" * 5000, "5000000TiB"],
)
def test_sizes_that_are_none_are_a_message(text: str, tmp_path: Path) -> None:
    done = cosma("compile", tmp_path / "none.onnx", f"--scratchpad={text}")
    assert done.code == 2
    assert done.err.startswith("error: --scratchpad: ")
    assert len(done.err) < 200
    (tmp_path / "a.toml").write_text(f'scratchpad = "{text}"\n')
    done = cosma("compile", tmp_path / "none.onnx", "--accelerator", tmp_path / "a.toml")
    assert done.code == 2
    assert "scratchpad" in done.err
    assert "internal error" not in done.err


def test_sizes_up_to_the_largest() -> None:
    assert parse_size("4194304TiB") == 2**62
    assert format_size(2**62) == "4 EiB"
    assert parse_size("0e99999999") == 0


@pytest.mark.skipif(not os.path.exists("/proc/net/tcp"), reason="reads the sockets of this process from /proc")
def test_a_local_cluster_listens_on_the_loopback_interface_alone() -> None:
    pytest.importorskip("distributed")
    from cosma.experiments.cluster import local_cluster

    cluster = local_cluster(1)
    try:
        addresses = _listening(_family(os.getpid()))
    finally:
        cluster.close()
    # A scheduler, its dashboard, a worker, its nanny and a page of the worker.
    assert len(addresses) >= 4
    assert set(addresses) == {"0100007F"}, "addresses in /proc are hexadecimal, last byte first"


def _family(root: int) -> set[int]:
    parents: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    family = {root}
    while grown := {child for child, parent in parents.items() if parent in family} - family:
        family |= grown
    return family


def _listening(processes: set[int]) -> list[str]:
    sockets = set()
    for process in processes:
        try:
            for handle in Path(f"/proc/{process}/fd").iterdir():
                sockets.add(os.readlink(handle))
        except OSError:
            continue
    found = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:] if os.path.exists(table) else ():
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                found.append(fields[1].partition(":")[0])
    return found
