"""Federated averaging of a representation, with a head of its own at each site, trained in turn."""

from torch import nn

from common.errors import ConfigError
from server.strategies.fedavg import FedAvg


class FedRep(FedAvg):
    """Each site trains its head with the body at rest (`strategy.head-epochs`), then the body with its head at rest.

    The body is averaged. The averaged head serves sites that never trained. The paper trains the head for ten epochs,
    the default here is one.

    Source: Collins et al. 2021, "Exploiting Shared Representations for Personalized Federated Learning", algorithm 1.
    """

    personal = ("@head",)
    manner = "alternating"

    def keeps(self, model: nn.Module) -> tuple[str, ...]:
        """Name the arrays that stay; something must be left to train at each turn.

        Raises:
            ConfigError: A path or role that the model does not have, or one that leaves nothing to share.
        """
        names = super().keeps(model)
        if not {name for name, _ in model.named_parameters()} - set(names):
            raise ConfigError(
                "strategy 'fedrep' trains what stays at the site and what is shared in turn, and 'strategy.personal' "
                "leaves no parameter to share. Name fewer paths there, or take 'mr-mtl'."
            )
        return names
