"""Every command on a real terminal of 80 columns, in a pipe, where it cannot write, and with wrong options."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from snn_dendrite_plugin import builtin, cli

pty = pytest.importorskip("pty")
import fcntl  # noqa: E402
import struct  # noqa: E402
import termios  # noqa: E402

SCRIPT = Path(sysconfig.get_path("scripts")) / "snn-dendrite"
COMMANDS = [fields["name"] for fields in builtin.COMMANDS]


def on_terminal(*command: str, cwd: Path, columns: int = 80) -> tuple[int, str]:
    """Exit code of a program and what it writes on a terminal, the control codes included."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    plain = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR")}
    program = subprocess.Popen(
        command, cwd=cwd, env={**plain, "TERM": "xterm-256color"}, stdin=its, stdout=its, stderr=its
    )
    os.close(its)
    written = b""
    try:
        while chunk := os.read(ours, 65536):
            written += chunk
    except OSError:  # the other end is closed
        pass
    finally:
        os.close(ours)
    return program.wait(), written.decode()


def visible(text: str) -> list[str]:
    """The lines as they stand on the screen."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\r\n", "\n").split("\n")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    pytest.importorskip("spikingjelly")
    from spikingjelly.activation_based.model.ms_resnet import MSResNet
    from spikingjelly.activation_based.neuron import ParametricLIFNode

    path = tmp_path_factory.mktemp("checkpoint") / "net.pt"
    net = MSResNet(
        T=2, in_channels=1, num_classes=3, layers=(1, 1, 1), base_channels=4, spiking_neuron=ParametricLIFNode
    )
    torch.save(net, path)
    return path


# One interpreter runs several commands, as most of the time goes into importing torch.
PROGRAM = """
import sys
from snn_dendrite_plugin.bench import measure
from snn_dendrite_plugin.cli import app
measure.CASES["sizes"] = [measure.Case("DendSN fold", (2, 1, 8, 4)), measure.Case("LNM", (2, 1, 4))]
for line in sys.argv[1].split(";"):
    print(f"@ {line}", flush=True)
    try:
        app(line.split())
    except SystemExit as end:
        print(f"@@ {end.code}", flush=True)
"""


def test_tables_fit_80_columns_of_a_real_terminal(tmp_path, checkpoint):
    lines = [
        "list",
        "doctor",
        "doctor --check",
        "bench --preset sizes --rounds 5",
        f"convert {checkpoint} out.pt --set branches=2",
        "summary out.pt --shape 2,1,16,16",
        "demo --quick --host snntorch",
    ]
    code, text = on_terminal(sys.executable, "-P", "-c", PROGRAM, ";".join(lines), cwd=tmp_path)
    shown = visible(text)
    assert code == 0, text
    assert [line for line in shown if line.startswith("@@")] == ["@@ 0"] * len(lines), text
    moving = [line for line in shown if "\r" in line]  # bars, which return to the line's start
    wide = [line for line in shown if len(line) > 80 and line not in moving and not line.startswith("@ ")]
    assert wide == []
    # Names are whole: no table tears a word that has room in 80 columns.
    for word in ("DendriticParallel", "soma_dendrite", "scikit-learn", "ParametricLIFNode", "accuracy", "snntorch"):
        assert any(word in line.split() or f"{word}," in line.split() for line in shown), word
    assert (tmp_path / "snn-dendrite-demo.png").exists()
    assert "nan" not in "\n".join(shown)


def test_help_on_a_terminal_has_an_example_of_every_command(tmp_path):
    lines = [f"{name} --help" for name in COMMANDS]
    code, text = on_terminal(sys.executable, "-P", "-c", PROGRAM, ";".join(lines), cwd=tmp_path)
    assert code == 0
    assert all(len(line) <= 80 for line in visible(text))
    for name in COMMANDS:
        plain = CliRunner().invoke(cli.app, [name, "--help"]).output
        assert f"Example: snn-dendrite {name}" in plain
        assert f"Example: snn-dendrite {name}" in "\n".join(visible(text))
        assert not re.search(r"--[\w-]+ +<list", plain)  # a type of Python's is no word for a shell
    summaries = CliRunner().invoke(cli.app, ["--help"]).output
    assert "..." not in summaries.partition("Commands:")[2]  # none is cut


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["dmeo"], "no such command 'dmeo'. Did you mean 'demo'?"),
        (["list", "--jsno"], "no such option: --jsno"),
        (["bench", "--preset", "sizse"], "--preset is 'sizse'; it must be one of targets, lengths, sizes"),
        (["bench", "--preset", "sizse"], "did you mean 'sizes'?"),
        (["bench", "--device", "tpu"], "--device is 'tpu'; it must be one of cpu, cuda"),
        (["bench", "--rounds", "many"], "--rounds"),
        (["bench", "--plot", "times.txt"], "--plot is 'times.txt'; it must end in .png, .pdf or .svg"),
        (["bench", "--csv", "no/times.csv"], "--csv is 'no/times.csv', but there is no directory 'no'"),
        (["bench", "--csv", "file/times.csv"], "--csv is 'file/times.csv', but there is no directory 'file'"),
        (["bench", "--csv", "folder"], "--csv is 'folder', which is a directory"),
        (["demo", "--host", "snntroch"], "--host is 'snntroch'"),
        (["demo", "--out", "folder.png"], "--out is 'folder.png', which is a directory"),
        (["demo", "--seeds", "0"], "--seeds"),
        (["zoo", "--out", "file/zoo.md"], "there is no directory 'file'"),
        (["convert", "net.pt"], "missing argument"),
        (["convert", "net.pt", "out.pt"], "IN.pt is 'net.pt', which does not exist"),
        (["convert", "folder", "out.pt"], "IN.pt is 'folder', which is a directory"),
        (["convert", "file", "folder"], "OUT.pt is 'folder', which is a directory"),
        (["convert", "file", "file/out.pt"], "OUT.pt is 'file/out.pt', but there is no directory 'file'"),
        (["convert", "file", "out.pt", "--set", "branches"], "--set is 'branches'; it must read NAME=VALUE"),
        (["run", "none.py"], "script 'none.py' does not exist"),
    ],
)
def test_wrong_command_lines_are_one_line_and_code_2(arguments, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("kept")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder.png").mkdir()
    before = sorted(tmp_path.rglob("*"))
    result = CliRunner().invoke(cli.app, arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert said in line
    assert sorted(tmp_path.rglob("*")) == before  # looking whether a file can be written leaves none
    assert (tmp_path / "file").read_text() == "kept"


def test_output_that_cannot_be_written_is_told_before_the_work(tmp_path, monkeypatch):
    from snn_dendrite_plugin.commands import demo
    from snn_dendrite_plugin.commands.terminal import check_output

    def refuse(self, *arguments, **keywords):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)  # as in a directory that is read-only, which root does not know
    monkeypatch.setattr(demo, "run_demo", lambda *arguments: pytest.fail("the work began"))
    result = CliRunner().invoke(cli.app, ["demo", "--out", str(tmp_path / "demo.png")])
    assert result.exit_code == 2
    assert result.stderr == f"error: --out is '{tmp_path}/demo.png', which cannot be written: Permission denied\n"
    monkeypatch.undo()
    check_output("--out", tmp_path / "demo.png")
    assert not list(tmp_path.iterdir())


def test_pipe_that_is_closed_early_is_no_traceback(tmp_path):
    done = subprocess.run(f"'{SCRIPT}' list | head -n 1", shell=True, cwd=tmp_path, capture_output=True, text=True)
    assert done.stderr == ""
