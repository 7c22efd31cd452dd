"""A phonon calculation as data of `esen-flows train --finetune MODEL --phonons PATH`."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from esen_flows.data.dataset import Dataset
    from esen_flows.forcefield.checkpoint import Checkpoint
    from esen_flows.physics.lattice.phonon_labels import PhononLabels

REPORT_NAME = "phonons.json"
# A few supercells: these steps, and not those of thousands of structures, make the frequencies follow.
EPOCHS = 100


@dataclass(frozen=True)
class PhononSource:
    """A phonon calculation to fine-tune on.

    Attributes
    ----------
    labels
        Displaced supercells with forces, and force constants.
    weight
        Weight of Hessian-vector products in the loss; 0: only the forces are trained on.
    """

    labels: "PhononLabels"
    weight: float = 1.0

    def defaults(self, alone: bool) -> dict[str, Any]:
        """Settings of the stage that replace those of other fine-tunings.

        Parameters
        ----------
        alone
            Whether there are no other data. The forces of one crystal then say nothing of the zero of the energy, and
            the supercells have the parent's.

        Returns
        -------
        dict[str, Any]
            Settings by name.
        """
        of_one = {"epochs": EPOCHS, "references": "keep", "scale": "keep", "warmup_steps": 20, "ema_decay": 0.98}
        return {"curvature_weight": self.weight} | (of_one if alone else {})

    def data(self, parent: "Checkpoint", others: "tuple[Dataset, Dataset] | None") -> "tuple[Dataset, Dataset]":
        """Training and validation data: the supercells, beside other data where there are some.

        Parameters
        ----------
        parent
            Force field to fine-tune. It gives the energy of the perfect supercell, of which phonopy keeps none.
        others
            Other training and validation data.

        Returns
        -------
        tuple[Dataset, Dataset]
            Without other data both are the supercells: the errors are then those of a fit.
        """
        from esen_flows.data.dataset import from_structures, mixture
        from esen_flows.forcefield.network import NetworkForceField
        from esen_flows.training.initial import refitted

        base = parent if others is None else refitted(parent, others[0])
        (perfect,) = NetworkForceField(base).evaluate(self.labels.force_constants.supercell)
        own = from_structures(self.labels.structures(perfect.energy), {"phonons": "phonopy"})
        return (own, own) if others is None else (mixture([(others[0], 1), (own, 1)]), others[1])

    def report(self, parent: "Checkpoint", child: "Checkpoint", folder: Path) -> str:
        """Frequencies of the calculation, and of the force field before and after; also written to phonons.json.

        Parameters
        ----------
        parent, child
            Force field before and after.
        folder
            Folder of the training.

        Returns
        -------
        str
            Two lines for people.
        """
        import numpy as np

        from esen_flows.files import written_whole
        from esen_flows.forcefield.network import NetworkForceField
        from esen_flows.physics.lattice.phonon_labels import model_frequencies_thz

        reference = self.labels.frequencies_thz()
        found = {"reference_thz": reference.tolist()}
        lines = []
        for when, checkpoint in (("before", parent), ("after", child)):
            frequencies = model_frequencies_thz(NetworkForceField(checkpoint, dtype="float64"), self.labels)
            found[f"{when}_thz"] = frequencies.tolist()
            rms = float(np.sqrt(np.mean((frequencies - reference) ** 2)))
            lines.append(
                f"phonons, {when}: highest {frequencies[-1]:.3f} THz (calculation: {reference[-1]:.3f}), lowest "
                f"{frequencies[0]:.3f}, RMS difference {rms:.3f} THz"
            )
        with written_whole(folder / REPORT_NAME) as temporary:
            temporary.write_text(json.dumps(found) + "\n")
        return "\n".join(lines)


def read_phonons(path: Path, weight: float) -> PhononSource:
    """Read a phonon calculation.

    Parameters
    ----------
    path
        YAML file of phonopy, or a folder with one.
    weight
        Weight of the loss on curvature; 0: no such term.

    Returns
    -------
    PhononSource
        The calculation as training data.

    Raises
    ------
    InputError
        It cannot be read.
    """
    from esen_flows.physics.lattice.phonon_labels import read_phonon_labels

    return PhononSource(read_phonon_labels(path), weight)
