"""A training whose jobs have too little time, and an evaluation after it, as fireworks.

The environment names the store, and by JOBFLOW_CONFIG_FILE and the working directory the files of
`store.jobflow_files.write_jobflow_files`. Arguments: key of the dataset, seed of the stage. Prints what became of the
fireworks, and the evaluation's output.
"""

import json
import sys

from copper_stages import stage
from fireworks import FWorker, LaunchPad
from fireworks.core.rocket_launcher import rapidfire
from jobflow import SETTINGS, Flow
from jobflow.managers.fireworks import flow_to_workflow

from esen_flows.makers.training import EvaluateMaker, TrainMaker
from esen_flows.schemas.training import Split


def main(dataset: str, seed: str) -> None:
    """Add the workflow and work it off, one job after the other."""
    launchpad = LaunchPad.from_file("my_launchpad.yaml")
    launchpad.reset("", require_password=False)
    split = Split(fraction=0.25)
    training = TrainMaker(config=stage(seed=int(seed)), split=split, max_seconds=0.0).make(dataset)
    training.update_config({"manager_config": {"_priority": 7}})
    judging = EvaluateMaker(held_out=split).make(dataset, training=training.output)
    launchpad.add_wf(flow_to_workflow(Flow([training, judging])))
    rapidfire(launchpad, FWorker.from_file("my_fworker.yaml"), nlaunches=0, strm_lvl="ERROR")
    fireworks = [launchpad.get_fw_by_id(number) for number in sorted(launchpad.get_fw_ids())]
    SETTINGS.JOB_STORE.connect()
    said = {
        "states": [firework.state for firework in fireworks],
        "priorities": [firework.spec.get("_priority") for firework in fireworks],
        "keys": [firework.spec["_tasks"][0]["job"].metadata.get("result_key") for firework in fireworks],
        "evaluation": SETTINGS.JOB_STORE.get_output(judging.uuid),
    }
    print(json.dumps(said))


if __name__ == "__main__":
    main(*sys.argv[1:])
