"""The slow path: build the flow and run it in this process, with progress bars. Imports torch and jobflow."""

import warnings
from dataclasses import replace

from jobflow import Flow, Job, run_locally
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from esen_flows.cli.machine import tune_allocator
from esen_flows.cli.property_request import PropertyRequest
from esen_flows.makers.conductivity import ConductivityMaker
from esen_flows.makers.phonon import PhononMaker
from esen_flows.makers.relax import RelaxMaker
from esen_flows.progress import listening
from esen_flows.schemas.protocols import PhononProtocol, RelaxProtocol
from esen_flows.settings import get_settings
from esen_flows.store.jobflow_store import job_store
from esen_flows.store.results import Store

STEP_NAMES = {
    "relax": "relaxation",
    "forces": "displaced supercells",
    "phonon": "force constants, phonons",
    "conductivity": "force constants, transport",
}


def run(request: PropertyRequest, store: Store) -> None:
    """Compute what is missing for a question; results end up in the store.

    Raises
    ------
    EsenFlowsError
        a step failed; the failure is stored where it says something about the material.
    """
    tune_allocator()
    store.sweep()
    threads = get_settings().threads
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    with _Bars() as bars, listening(bars), warnings.catch_warnings():
        # What other packages will change one day is for our tests, not for whoever waits for a number.
        for category in (DeprecationWarning, FutureWarning):
            warnings.simplefilter("ignore", category)
        warnings.filterwarnings("ignore", module=r"(maggma|pymatgen|monty|spglib)\b")
        run_locally(build(request), log=False, store=job_store(store), raise_immediately=True)


def build(request: PropertyRequest) -> Flow | Job:
    """The flow of a question, the same that a queue would run."""
    return _maker(request).make(request.atoms)


def _maker(request: PropertyRequest) -> RelaxMaker | PhononMaker | ConductivityMaker:
    protocol = request.protocol
    maker: RelaxMaker | PhononMaker | ConductivityMaker
    if isinstance(protocol, RelaxProtocol):
        maker = RelaxMaker(protocol=protocol)
    elif isinstance(protocol, PhononProtocol):
        maker = PhononMaker(protocol=protocol)
    else:
        maker = ConductivityMaker(protocol=protocol)
    return replace(maker, force_field_name=request.model.location, numeric=request.numeric, device=request.device)


class _Bars:
    """One progress bar per step, on stderr, made when the step first reports."""

    def __init__(self) -> None:
        self.progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[words]}"),
            console=Console(stderr=True),
        )
        self.tasks: dict[str, TaskID] = {}

    def __enter__(self) -> "_Bars":
        self.progress.start()
        return self

    def __exit__(self, error: type[BaseException] | None, *details: object) -> None:
        if error is None:
            self._finish()
        self.progress.stop()

    def __call__(self, kind: str, done: int, total: int | None, words: str) -> None:
        """Listener of `makers.progress`."""
        if kind not in self.tasks:
            self._finish()  # steps follow one another, and some do not know their end before
            self.tasks[kind] = self.progress.add_task(STEP_NAMES.get(kind, kind), total=total, words=words)
        self.progress.update(self.tasks[kind], completed=done, total=total, words=words)

    def _finish(self) -> None:
        for task in self.progress.tasks:
            if not task.finished:
                self.progress.update(task.id, total=1, completed=1)
