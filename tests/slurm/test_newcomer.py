"""The commands of launchers/slurm_gpu/README.md, run on the test site."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from one_node import SlurmSite, wait_for

from esen_flows.campaigns.status import campaign_status
from esen_flows.store.results import Store

pytestmark = [pytest.mark.slurm, pytest.mark.mongod, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "launchers/slurm_gpu/README.md").read_text(encoding="utf-8")


def six_commands() -> list[str]:
    (block,) = re.findall(r"## Six commands\n.*?```bash\n(.*?)```", README, flags=re.DOTALL)
    commands = block.splitlines()
    assert len(commands) == 6
    return commands


def test_six_commands_bring_up_a_site(slurm_site: SlurmSite, store: Store, tmp_path: Path) -> None:
    clone, *rest = six_commands()
    # The clone and its environment are there already.
    assert clone.startswith("git clone ")
    assert "&& cd esen_flows && " in clone
    assert clone.endswith("./setup.sh")
    (tmp_path / "esen_flows").mkdir()
    (tmp_path / "esen_flows/.venv").symlink_to(Path(sys.executable).parents[1])
    inherited = {k: v for k, v in slurm_site.environment.items() if not k.startswith("ESEN_FLOWS_")}
    done = subprocess.run(
        ["bash", "-euxc", "\n".join(rest)],
        input=store.database.uri + "\n",  # pasted by the user
        cwd=tmp_path / "esen_flows",
        env={**inherited, "HOME": str(tmp_path), "ESEN_FLOWS_DATABASE": store.database.database_name},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "mongo_uri").stat().st_mode & 0o777 == 0o600
    (job,) = re.findall(r"^Submitted batch job (\d+)$", done.stdout, flags=re.MULTILINE)
    try:
        wait_for("all members", lambda: campaign_status(store, "trial").pending == 0, 300)
    finally:
        slurm_site.run("scancel", job)
        slurm_site.wait(job)
        (told,) = (tmp_path / "esen_flows/site/log").glob(f"*-{job}.out")
        print(told.read_text())
    status = campaign_status(store, "trial")
    assert (status.members, status.finished) == (14, 14)
    # Copper by EMT has its minimum at a = 3.5898 A.
    copper = [row["summary"] for row in store.database["results"].find({"formula": "Cu"}, {"summary": True})]
    assert [row["volume_per_atom_angstrom3"] for row in copper] == pytest.approx([3.5898**3 / 4] * 2, rel=3e-3)
