"""The templates of launchers/, filled in, are accepted by shells, queues and FireWorks."""

import os
import re
import shlex
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml
from fireworks.user_objects.queue_adapters.common_adapter import CommonAdapter

from esen_flows.campaigns.spec import read_spec
from esen_flows.cli.app import main
from esen_flows.queue.launchers import fill, list_sites, values_of

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = 180  # for scripts that take milliseconds, on a machine that has other work
GIVEN = {"partition": "gpu", "gpus_per_node": "4", "cpus_per_gpu": "8", "walltime": "4:00:00", "account": "chem"}


def filled(site: str, folder: Path, **more: str) -> Path:
    """A site's folder."""
    uri_file = folder / "uri"
    uri_file.write_text("mongodb://user:secret@server/")
    given = {name: value for name, value in {**GIVEN, **more}.items() if name in values_of(site)}
    fill(site, {**given, "uri_file": str(uri_file)}, folder / site)
    return folder / site


@pytest.mark.parametrize("site", list_sites())
def test_filled_in_files_are_complete(site: str, tmp_path: Path) -> None:
    folder = filled(site, tmp_path)
    for path in folder.glob("*.*"):
        text = path.read_text()
        assert "{{" not in text, path
        assert "secret" not in text, path  # the URI stays where it is
        if text.startswith("#!") or path.suffix == ".sh":
            subprocess.run(["bash", "-n", path], check=True)
        if path.suffix == ".yaml":
            yaml.safe_load(text)
    environment = (folder / "environment.sh").read_text()
    assert f"export ESEN_FLOWS_MONGO_URI_FILE={tmp_path}/uri\n" in environment
    assert "ESEN_FLOWS_DATABASE" not in environment  # not given
    assert (folder / "log").is_dir()


@pytest.mark.parametrize("site", list_sites())
def test_readme_brings_up_the_site_in_six_commands(
    site: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = (ROOT / "launchers" / site / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"## Six commands\n.*?```bash\n(.*?)```", readme, flags=re.DOTALL)
    commands = block.splitlines()
    assert len(commands) == 6
    assert f"esen-flows campaign submit {read_spec('trial').name} --device cuda" in commands
    (init,) = [shlex.split(command) for command in commands if " launcher init " in command]
    (tmp_path / "mongo_uri").write_text("mongodb://server/")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main([word.replace("~/", f"{tmp_path}/") for word in init[1:]])
    assert not stop.value.code
    written = re.findall(r"(?:^|[ `])(site/[\w.]+)", block)
    assert written
    assert all((tmp_path / name).exists() for name in written)


def test_workers_of_a_node_have_what_the_queue_gives(tmp_path: Path) -> None:
    slurm = filled("slurm_gpu", tmp_path, warning_seconds="600")
    node = (slurm / "node.sbatch").read_text()
    for words in ("partition=gpu", "account=chem", "gres=gpu:4", "cpus-per-task=32", "signal=B:USR1@600"):
        assert f"#SBATCH --{words}\n" in node
    assert "--qos" not in node
    assert "#SBATCH --gres=gpu:1\n#SBATCH --cpus-per-task=8\n" in (slurm / "gpu.sbatch").read_text()
    cpu = (slurm / "cpu.sbatch").read_text()
    assert "gres" not in cpu
    assert "worker --category cpu --threads 32 " in cpu
    pbs = filled("pbs_gpu", tmp_path)
    assert "#PBS -l select=1:ncpus=32:ngpus=4\n#PBS -l walltime=4:00:00\n" in (pbs / "node.pbs").read_text()
    assert "--devices 0,1,2,3 --threads 8" in (filled("workstation", tmp_path) / "start.sh").read_text()


@pytest.mark.filterwarnings("error")  # FireWorks warns of what its template does not know
@pytest.mark.parametrize(
    ("site", "lines"),
    [
        (
            "slurm_gpu",
            [
                "#!/bin/bash -l",
                "#SBATCH --nodes=1",
                "#SBATCH --ntasks=1",
                "#SBATCH --cpus-per-task=32",
                "#SBATCH --gres=gpu:4",
                "#SBATCH --time=4:00:00",
                "#SBATCH --partition=gpu",
                "#SBATCH --account=chem",
                "#SBATCH --job-name=esen-node",
                "#SBATCH --output=esen-node-%j.out",
                "#SBATCH --error=esen-node-%j.error",
                "#SBATCH --signal=B:USR1@300",
                "cd {launch}",
                "exec bash {folder}/run.sh esen-flows worker --category gpu --threads 8",
            ],
        ),
        (
            "pbs_gpu",
            [
                "#!/bin/bash",
                "#PBS -N esen-node",
                "#PBS -q gpu",
                "#PBS -A chem",
                "#PBS -l select=1:ncpus=32:ngpus=4",
                "#PBS -l walltime=4:00:00",
                "#PBS -r y",
                "#PBS -j oe",
                "cd {launch}",
                "exec bash {folder}/run.sh esen-flows worker --category gpu --threads 8 --walltime 4:00:00",
            ],
        ),
    ],
)
def test_qlaunch_writes_the_same_job(site: str, lines: list[str], tmp_path: Path) -> None:
    folder = filled(site, tmp_path)
    adapter = CommonAdapter.from_file(str(folder / "my_qadapter.yaml"))
    assert yaml.safe_load((folder / "my_qadapter.yaml").read_text())["_fw_name"] == "CommonAdapter"
    script = adapter.get_script_str(str(tmp_path))
    written = [line for line in script.splitlines() if line.startswith(("#!", "#SBATCH", "#PBS")) or line[:1].isalpha()]
    assert written == [line.format(launch=tmp_path, folder=folder) for line in lines]
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


WORKER = """#!/bin/bash
# Works until it gets a signal, as esen-flows worker does.
trap 'echo USR1; exit 75' USR1
trap 'echo TERM; exit 75' TERM
echo "$@"
touch {ready}
[ -z "$AT_ONCE" ] || exit "$AT_ONCE"
while :; do /bin/sleep 0.05; done
"""


@pytest.mark.parametrize(
    ("site", "sent", "resubmit", "at_once", "status", "again"),
    [
        ("slurm_gpu", signal.SIGUSR1, "1", "", 75, True),
        ("slurm_gpu", signal.SIGUSR1, "0", "", 75, False),
        ("slurm_gpu", signal.SIGTERM, "1", "", 75, False),
        ("slurm_gpu", None, "1", "75", 75, True),
        ("slurm_gpu", None, "1", "0", 0, False),
        ("slurm_gpu", None, "1", "3", 3, False),
        ("pbs_gpu", signal.SIGTERM, "1", "", 75, False),
        ("pbs_gpu", None, "1", "75", 75, True),
    ],
)
def test_signals_reach_the_worker_and_its_status_the_queue(
    site: str, sent: signal.Signals | None, resubmit: str, at_once: str, status: int, again: bool, tmp_path: Path
) -> None:
    folder = filled(site, tmp_path)
    ready, resubmitted = tmp_path / "ready", tmp_path / "resubmitted"
    for name, text in {
        "esen-flows": WORKER.format(ready=ready),
        "scontrol": f'#!/bin/bash\necho "$@" >{resubmitted}\n',
        "sleep": "#!/bin/bash\n",  # for SLURM's end of a job that is put back
        "qsub": f'#!/bin/bash\necho "$@" >{resubmitted}\n',
    }.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    with (folder / "environment.sh").open("a") as file:
        file.write(f'export PATH={tmp_path}:"$PATH"\n')
    (script,) = folder.glob("node.*")
    variables = {"RESUBMIT": resubmit, "AT_ONCE": at_once, "SLURM_JOB_ID": "7"}
    job = subprocess.Popen(["bash", script], env={**os.environ, **variables}, stdout=subprocess.PIPE, text=True)
    end = time.monotonic() + PATIENCE_SECONDS
    while not ready.exists():
        assert time.monotonic() < end
        time.sleep(0.01)
    if sent is not None:
        job.send_signal(sent)  # only to the process that the queue knows
    out, _ = job.communicate(timeout=PATIENCE_SECONDS)
    assert job.returncode == status
    assert out.splitlines()[0].startswith("worker --category gpu --threads 8")
    if sent is not None:
        assert out.splitlines()[1] == sent.name.removeprefix("SIG")
    assert resubmitted.exists() == again
    if again:
        expected = "requeue 7" if site == "slurm_gpu" else f"-v RESUBMIT=1 {folder}/node.pbs"
        assert resubmitted.read_text().strip() == expected


def test_apptainer_recipe_installs_what_is_named_here() -> None:
    recipe = (ROOT / "launchers/apptainer/esen_flows.def").read_text()
    sections = re.findall(r"^%(\w+)", recipe, flags=re.MULTILINE)
    assert sections == ["files", "post", "environment", "runscript", "test", "help"]
    for source in re.search(r"^%files\n(.*?)\n\n", recipe, flags=re.DOTALL | re.MULTILINE)[1].split("\n"):
        assert (ROOT / source.split()[0]).exists(), source
    assert "-c /opt/esen_flows/constraints.txt" in recipe
