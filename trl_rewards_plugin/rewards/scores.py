"""RewardScores: a total that never travels without its parts."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class RewardScores:
    """Scores of N texts, float32 on the CPU.

    Attributes:
        total: (N,), the combination of the components; NaN where none of them scored the text.
        components: Name -> (N,), raw, before normalisation and weights; NaN where that component gave no score.
    """

    total: Tensor
    components: dict[str, Tensor]
