"""`esen-flows launcher`: list, init."""

from pathlib import Path

import pytest

from esen_flows.cli.app import main
from esen_flows.queue import launchers

SLURM = ("--site", "slurm_gpu", "--partition", "gpu", "--gpus-per-node", "2", "--cpus-per-gpu", "3")


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main(["launcher", *arguments])
    out, err = capsys.readouterr()
    return int(stop.value.code or 0), out, err


def test_list(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    code, out, _ = run(capsys, "list")
    assert code == 0
    lines = {line.split()[0]: line for line in out.splitlines()}
    assert {"slurm_gpu", "pbs_gpu", "workstation"} <= lines.keys()
    assert lines["workstation"].rstrip().endswith("--uri-file --database")


def test_init(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("uri").write_text("mongodb://server/")
    arguments = ("init", *SLURM, "--output", "site", "--walltime", "1h", "--uri-file", "uri")
    code, out, _ = run(capsys, *arguments)
    assert code == 0
    assert f"sbatch {tmp_path}/site/node.sbatch" in out
    node = (tmp_path / "site/node.sbatch").read_text()
    assert "--cpus-per-task=6\n" in node
    assert f"exec bash {tmp_path}/site/run.sh esen-flows worker " in node
    assert f"MONGO_URI_FILE={tmp_path}/uri\n" in (tmp_path / "site/environment.sh").read_text()
    (tmp_path / "site/node.sbatch").write_text("mine")
    code, _, err = run(capsys, *arguments)
    assert code == 1
    assert f"{tmp_path}/site/node.sbatch, " in err
    assert "--force to replace" in err
    assert (tmp_path / "site/node.sbatch").read_text() == "mine"
    assert run(capsys, *arguments, "--force")[0] == 0
    assert (tmp_path / "site/node.sbatch").read_text() == node


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--site", "moon"), "no launcher for a site 'moon'; choose one of pbs_gpu, slurm_gpu, workstation"),
        ((*SLURM, "--uri-file", "uri"), "--walltime is missing: time limit of a job, H:MM:SS, such as 4:00:00"),
        ((*SLURM, "--uri-file", "uri", "--walltime", "2000h"), "got '2000:00:00'"),
        ((*SLURM, "--uri-file", "uri", "--walltime", "0:05:00"), "--warning-seconds: a job of 0:05:00 would be warned"),
        ((*SLURM, "--uri-file", "nothing", "--walltime", "4:00:00"), "/nothing; write the mongodb:// URI into it"),
        ((*SLURM, "--account", "a;rm -r .", "--walltime", "1:00:00", "--uri-file", "uri"), "got 'a;rm -r .'"),
        (("--site", "workstation", "--queue", "gpu"), "--partition: workstation takes no such value"),
        (
            ("--site", "workstation", "--gpus-per-node", "1", "--cpus-per-gpu", "1", "--output", "my site"),
            "my site stands in scripts",
        ),
    ],
)
def test_what_is_refused(
    arguments: tuple[str, ...],
    words: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("uri").write_text("mongodb://server/")
    code, _, err = run(capsys, "init", "--output", "site", *arguments)
    assert code == 1
    assert words in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["uri"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--time={{ waltime }}", "sub.sh:2: no placeholder 'waltime'; there are account, "),
        ("--time={{walltime}}", "sub.sh:2: a placeholder is written {{ name }}; got --time={{walltime}}"),
    ],
)
def test_faults_of_a_template_name_its_line(
    line: str, words: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/next.txt").write_text("next\n")
    (tmp_path / "mine/sub.sh").write_text(f"#!/bin/bash\n{line}\n")
    monkeypatch.setattr(launchers, "asset_dir", lambda folder: tmp_path)
    code, _, err = run(capsys, "init", "--site", "mine", "--output", str(tmp_path / "site"))
    assert code == 1
    assert words in err
