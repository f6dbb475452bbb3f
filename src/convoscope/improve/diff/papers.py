"""The papers behind a comparison, as BibTeX: of what it holds, and of nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .result import Diff

_MCNEMAR = (
    "@article{mcnemar1947note, title={Note on the Sampling Error of the Difference Between Correlated Proportions or "
    "Percentages}, author={McNemar, Quinn}, journal={Psychometrika}, volume={12}, number={2}, pages={153--157}, "
    "year={1947}}"
)
_MANY_TESTS = (
    "@article{benjamini1995controlling, title={Controlling the False Discovery Rate: A Practical and Powerful Approach "
    "to Multiple Testing}, author={Benjamini, Yoav and Hochberg, Yosef}, journal={Journal of the Royal Statistical "
    "Society: Series B}, volume={57}, number={1}, pages={289--300}, year={1995}}"
)
_CALIBRATION = (
    "@inproceedings{guo2017calibration, title={On Calibration of Modern Neural Networks}, author={Guo, Chuan and "
    "Pleiss, Geoff and Sun, Yu and Weinberger, Kilian Q.}, booktitle={ICML}, year={2017}}"
)
_CKA = (
    "@inproceedings{nguyen2021wide, title={Do Wide and Deep Networks Learn the Same Things? Uncovering How Neural "
    "Network Representations Vary with Width and Depth}, "
    "author={Nguyen, Thao and Raghu, Maithra and Kornblith, Simon}, booktitle={ICLR}, year={2021}}"
)
_UNITS = (
    "@inproceedings{li2016convergent, title={Convergent Learning: Do Different Neural Networks Learn the Same "
    "Representations?}, author={Li, Yixuan and Yosinski, Jason and Clune, Jeff and Lipson, Hod and Hopcroft, John}, "
    "booktitle={ICLR}, year={2016}}"
)
_FORGETTING = (
    "@inproceedings{toneva2019forgetting, title={An Empirical Study of Example Forgetting During Deep Neural Network "
    "Learning}, author={Toneva, Mariya and Sordoni, Alessandro and Tachet des Combes, Remi and Trischler, Adam and "
    "Bengio, Yoshua and Gordon, Geoffrey J.}, booktitle={ICLR}, year={2019}}"
)


def bibtex(diff: Diff) -> str:
    """The entries, in the order of the page."""
    from ...methods import bibtex as of_methods

    pairs = diff.pairs
    used = [
        (_MCNEMAR, any(pair.compared.whole is not None for pair in pairs)),
        (_MANY_TESTS, any(pair.compared.classes or pair.compared.slices for pair in pairs)),
        (_CALIBRATION, any(one is not None for one in diff.calibrations)),
        (_CKA, any(pair.cka.size for pair in pairs)),
        (_UNITS, any(pair.units.matches for pair in pairs)),
        (_FORGETTING, diff.run is not None),
        (of_methods(["grad-cam"]).strip(), any(flip.maps is not None for pair in pairs for flip in pair.flips)),
    ]
    return "\n\n".join(entry for entry, there in used if there) + "\n"
