"""The weighted sum of all terms."""

from jaxtyping import Float
from torch import Tensor, nn

from lgm.types import Prediction


class LossTerm(nn.Module):
    """One loss, its weight, and the optimizer step from which it counts.

    loss: a `Prediction` to a scalar. It sees the rendering and its targets, the Gaussians, and the input
        views: all that a batch holds on the device.
    """

    def __init__(self, loss: nn.Module, weight: float = 1.0, start_step: int = 0) -> None:
        super().__init__()
        if weight < 0 or start_step < 0:
            raise ValueError(f"a loss term needs weight={weight} and start_step={start_step} of at least 0")
        self.loss = loss
        self.weight = weight
        self.start_step = start_step


class CompositeLoss(nn.Module):
    """The weighted sum of all loss terms.

    `forward` gives the total to minimise and each active term, unweighted, for the log.
    Raises ValueError without a term, and in `forward` where none is active.
    """

    def __init__(self, terms: dict[str, LossTerm]) -> None:
        super().__init__()
        if not terms:
            raise ValueError("loss.terms is empty; give at least one term")
        self.terms = nn.ModuleDict(terms)

    def forward(
        self, prediction: Prediction, step: int | None = None
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """The weighted sum, and each active term detached and unweighted.

        step: optimizer steps done; a term counts from its `start_step` on. None is outside of training,
            where all
        count.
        """
        # A term of weight 0 or before its start costs nothing: it is not computed.
        values = {
            name: term.loss(prediction)
            for name, term in self.terms.items()
            if term.weight > 0 and (step is None or step >= term.start_step)
        }
        if not values:
            when = "" if step is None else f" at step {step}"
            raise ValueError(f"no loss term is active{when}; one needs start_step=0 and a weight above 0")
        total = sum(self.terms[name].weight * value for name, value in values.items())
        return total, {name: value.detach() for name, value in values.items()}
