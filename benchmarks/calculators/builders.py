"""Calculators of SevenNet and CHGNet: the packages' own in float32, those of this package in float64."""

from ase.calculators.calculator import Calculator


def sevennet(model: str, device: str, dtype: str) -> Calculator:
    """SevenNet's calculator; `model` is 7net-0."""
    if dtype == "float64":
        return _of_this_package("sevennet_0", device)
    from sevenn.calculator import SevenNetCalculator

    return SevenNetCalculator(model, device=device)


def chgnet(model: str, device: str, dtype: str) -> Calculator:
    """CHGNet's calculator; `model` is 0.3.0."""
    if dtype == "float64":
        return _of_this_package("chgnet", device)
    from chgnet.model.dynamics import CHGNetCalculator
    from chgnet.model.model import CHGNet

    network = CHGNet.load(model_name=model, use_device=device, verbose=False)
    return CHGNetCalculator(network, use_device=device, on_isolated_atoms="ignore")


def _of_this_package(card: str, device: str) -> Calculator:
    from esen_flows.forcefield.ase_calculator import ForceFieldCalculator

    return ForceFieldCalculator(model=card, device=device, dtype="float64")
