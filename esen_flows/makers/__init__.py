"""jobflow Makers and the bodies of their jobs. The Makers load on first use, so that importing this costs nothing."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__all__ = [
    "AuditMaker",
    "ConductivityMaker",
    "DiatomicsMaker",
    "ElasticMaker",
    "EosMaker",
    "EvaluateMaker",
    "LabelMaker",
    "MDMaker",
    "PhononMaker",
    "PretrainFinetuneFlow",
    "RecipeFlow",
    "RelaxMaker",
    "StaticMaker",
    "TrainMaker",
]

if TYPE_CHECKING:
    from esen_flows.makers.audit import AuditMaker
    from esen_flows.makers.conductivity import ConductivityMaker
    from esen_flows.makers.diatomics import DiatomicsMaker
    from esen_flows.makers.elastic import ElasticMaker
    from esen_flows.makers.eos import EosMaker
    from esen_flows.makers.md import MDMaker
    from esen_flows.makers.phonon import PhononMaker
    from esen_flows.makers.relax import RelaxMaker
    from esen_flows.makers.static import StaticMaker
    from esen_flows.makers.training import EvaluateMaker, LabelMaker, TrainMaker
    from esen_flows.makers.training_flows import PretrainFinetuneFlow, RecipeFlow

_MODULES = {
    "AuditMaker": "audit",
    "ConductivityMaker": "conductivity",
    "DiatomicsMaker": "diatomics",
    "ElasticMaker": "elastic",
    "EosMaker": "eos",
    "MDMaker": "md",
    "PhononMaker": "phonon",
    "RelaxMaker": "relax",
    "StaticMaker": "static",
    **dict.fromkeys(("EvaluateMaker", "LabelMaker", "TrainMaker"), "training"),
    **dict.fromkeys(("PretrainFinetuneFlow", "RecipeFlow"), "training_flows"),
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"esen_flows.makers.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'esen_flows.makers' has no attribute {name!r}; Makers: {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
