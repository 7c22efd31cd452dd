"""Trainings of several stages as jobflow flows: each stage starts from the network of the one before it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from jobflow import Flow, Job, Maker

from esen_flows.errors import InputError
from esen_flows.makers.keyed import noted
from esen_flows.makers.training import Data, Datasets, EvaluateMaker, LabelMaker, TrainMaker, repeated
from esen_flows.schemas.card import card_path, read_card
from esen_flows.schemas.requests import ResultRequest
from esen_flows.schemas.training import Split
from esen_flows.training.config import read_config


@dataclass
class PretrainFinetuneFlow(Maker):
    """Label if asked to, pre-train, fine-tune the pre-trained network, evaluate; each a job with a result of its own.

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
    """

    name: str = "pretrain-finetune"
    pretrain: TrainMaker = field(default_factory=lambda: TrainMaker(name="pretrain"))
    finetune: TrainMaker = field(default_factory=lambda: TrainMaker(name="finetune"))
    evaluate: EvaluateMaker | None = field(default_factory=EvaluateMaker)
    label: LabelMaker | None = None

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
            Its output refers to the fine-tuning, and to the evaluation on each of its datasets.
        """
        labelling = [] if self.label is None else [self.label.make(data)]
        if labelling:
            data = labelling[0].output
        last_data = data if finetune_data is None else finetune_data
        stages = chained([(self.pretrain, data), (self.finetune, last_data)])
        return _evaluated([*labelling, *stages], self.evaluate, self.finetune.split, last_data, self.name)


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
    """

    name: str = "recipe"
    card: str = "esen_30m_mp"
    recipe: str | None = None
    stage: TrainMaker = field(default_factory=TrainMaker)
    evaluate: EvaluateMaker | None = field(default_factory=EvaluateMaker)

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
            Its output refers to the last stage, and to the evaluation on each of its datasets.

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
        return _evaluated(chained(stages), self.evaluate, self.stage.split, stages[-1][1], f"{self.card} {chosen}")


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


def _evaluated(jobs: list[Job], evaluate: EvaluateMaker | None, split: Split, data: Datasets, name: str) -> Flow:
    """A flow of jobs, and of evaluations of the last one's force field on the held-out part of each of its datasets."""
    training, evaluations = jobs[-1].output, []
    if evaluate is not None:
        maker = replace(evaluate, held_out=split)
        evaluations = [maker.make(part, training=training) for part, _ in repeated(data)]
    output = {"training": training, "evaluations": [evaluation.output for evaluation in evaluations]}
    return Flow([*jobs, *evaluations], output=output, name=name)
