"""Trainings of several stages as jobflow flows: each stage starts from the network of the one before it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from jobflow import Flow, Job, Maker

from esen_flows.errors import InputError
from esen_flows.makers.audit import AuditMaker
from esen_flows.makers.keyed import keyed_job, noted
from esen_flows.makers.training import Data, Datasets, EvaluateMaker, LabelMaker, TrainMaker, repeated
from esen_flows.makers.training_jobs import gate_job
from esen_flows.schemas.card import card_path, read_card
from esen_flows.schemas.requests import ResultRequest
from esen_flows.schemas.training import Split
from esen_flows.training.config import read_config


@dataclass
class PretrainFinetuneFlow(Maker):
    """Label if asked to, pre-train, fine-tune the pre-trained network, audit, evaluate; each a job with its own result.

    Parameters
    ----------
    name
        Name of the flow.
    pretrain
        Stage with direct forces and DeNS.
    finetune
        Conservative stage that starts from the pre-trained network.
    evaluate
        Evaluates the fine-tuned force field on the held-out part of its data; None: no evaluation.
    label
        Labels the data of `make`; None: they are a dataset already.
    audit
        Audits the fine-tuned force field; None: no audit.
    stop_on_failed_audit
        Whether a failed audit stops the jobs that use the flow's force field: the evaluation, and jobs of other flows
        that take `output["training"]`.
    """

    name: str = "pretrain-finetune"
    pretrain: TrainMaker = field(default_factory=lambda: TrainMaker(name="pretrain"))
    finetune: TrainMaker = field(default_factory=lambda: TrainMaker(name="finetune"))
    evaluate: EvaluateMaker | None = field(default_factory=EvaluateMaker)
    label: LabelMaker | None = None
    audit: AuditMaker | None = field(default_factory=AuditMaker)
    stop_on_failed_audit: bool = False

    def make(self, data: Any, finetune_data: Datasets | None = None, prev_dir: str | None = None) -> Flow:
        """Make the flow.

        Parameters
        ----------
        data
            Data for pre-training, as in `TrainMaker.make`; with `label`, as in `LabelMaker.make`.
        finetune_data
            Data for fine-tuning; None: the same.
        prev_dir
            Accepted as in atomate2, and unused.

        Returns
        -------
        Flow
            Its output refers to the fine-tuning, its audit, and the evaluation on each of its datasets.

        Raises
        ------
        InputError
            A failed audit is to stop the flow, and there is none.
        """
        labelling = [] if self.label is None else [self.label.make(data)]
        if labelling:
            data = labelling[0].output
        last_data = data if finetune_data is None else finetune_data
        stages = chained([(self.pretrain, data), (self.finetune, last_data)])
        if self.stop_on_failed_audit and self.audit is None:
            raise InputError(f"{self.name}: stop_on_failed_audit needs an audit; give an AuditMaker, or leave it out")
        finished = Finished(self.audit, self.stop_on_failed_audit, self.evaluate, self.finetune.split)
        return finished.flow([*labelling, *stages], last_data, self.name)


@dataclass
class RecipeFlow(Maker):
    """Train all stages of a published recipe, as its card has them, and evaluate.

    Parameters
    ----------
    name
        Unused: the flow is named after the card and the recipe.
    card
        A card with recipes, such as esen_30m_mp.
    recipe
        One of its recipes; None: the first.
    stage
        Settings that all stages share: split, device, launcher, max_seconds, tags.
    evaluate
        Evaluates the last stage's force field on the held-out part of its data; None: no evaluation.
    audit
        Audits the last stage's force field; None: no audit.
    """

    name: str = "recipe"
    card: str = "esen_30m_mp"
    recipe: str | None = None
    stage: TrainMaker = field(default_factory=TrainMaker)
    evaluate: EvaluateMaker | None = field(default_factory=EvaluateMaker)
    audit: AuditMaker | None = field(default_factory=AuditMaker)

    def make(self, data: Mapping[str, Data], prev_dir: str | None = None) -> Flow:
        """Make the flow.

        Parameters
        ----------
        data
            Datasets by the names that the recipe gives them: {"sAlex": key, "MPtrj": key}.
        prev_dir
            Accepted as in atomate2, and unused.

        Returns
        -------
        Flow
            Its output refers to the last stage, its audit, and the evaluation on each of its datasets.

        Raises
        ------
        InputError
            There is no such recipe, or data that it needs are not given.
        """
        card = read_card(self.card)
        chosen = self.recipe or next(iter(card.recipes), "")
        if chosen not in card.recipes:
            raise InputError(f"card {self.card!r} has no recipe {chosen!r}; it has {sorted(card.recipes) or 'none'}")
        needed = {source.name for stage in card.recipes[chosen] for source in stage.data}
        if missing := sorted(needed - set(data)):
            raise InputError(f"recipe {chosen!r} of {self.card!r} needs {sorted(needed)}; {missing} were not given")
        stages: list[tuple[TrainMaker, list[tuple[Data, int]]]] = []
        for number, stage in enumerate(card.recipes[chosen], start=1):
            path = card_path(self.card).parent / stage.file
            maker = replace(self.stage, name=f"{self.card} {number} {path.stem}", config=read_config(path))
            stages.append((maker, [(data[source.name], source.repeats) for source in stage.data]))
        finished = Finished(self.audit, False, self.evaluate, self.stage.split)
        return finished.flow(chained(stages), stages[-1][1], f"{self.card} {chosen}")


def chained(stages: Sequence[tuple[TrainMaker, Datasets]]) -> list[Job]:
    """Make a job for each stage, which starts from the network of the stage before it.

    Parameters
    ----------
    stages
        The Maker of each stage, and its data as `TrainMaker.make` takes them.

    Returns
    -------
    list[Job]
        The jobs, with their result keys in their metadata where all datasets are known.
    """
    jobs: list[Job] = []
    request: ResultRequest | None = None
    for number, (maker, data) in enumerate(stages):
        work = maker.make(data, start=jobs[-1].output if jobs else None)
        request = maker.request(data, request) if number == 0 or request is not None else None
        jobs.append(noted(work, maker.name, "training", request))
    return jobs


@dataclass(frozen=True)
class Finished:
    """What follows the last training of a flow.

    Attributes
    ----------
    audit
        Audits its force field; None: no audit.
    stop
        Whether a failed audit stops what uses the force field.
    evaluate
        Evaluates the force field on what was held out of its data; None: no evaluation.
    split
        How the data were split.
    """

    audit: AuditMaker | None = None
    stop: bool = False
    evaluate: EvaluateMaker | None = None
    split: Split = field(default_factory=Split)

    def flow(self, jobs: list[Job], data: Datasets, name: str) -> Flow:
        """Make a flow of trainings and what follows.

        Parameters
        ----------
        jobs
            The trainings, as of `chained`.
        data
            Data of the last one.
        name
            Name of the flow.

        Returns
        -------
        Flow
            Its output refers to the last training, its audit, and the evaluation on each of its datasets.
        """
        training, audits = jobs[-1].output, list[Job]()
        if self.audit is not None:
            work = replace(self.audit, force_field_name=training).make()
            assert isinstance(work, Job)  # of a force field that is not known yet
            audits.append(work)
            if self.stop:
                arguments = {"audit": work.output, "training": training}
                audits.append(keyed_job(self.audit, gate_job, arguments, name="audit gate", kind="audit", request=None))
                training = audits[-1].output
        evaluations = []
        if self.evaluate is not None:
            maker = replace(self.evaluate, held_out=self.split)
            evaluations = [maker.make(part, training=training) for part, _ in repeated(data)]
        output = {"training": training, "evaluations": [evaluation.output for evaluation in evaluations]}
        if audits:
            output["audit"] = audits[0].output
        return Flow([*jobs, *audits, *evaluations], output=output, name=name)
