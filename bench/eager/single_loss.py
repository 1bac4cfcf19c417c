"""The training procedure of methods with one loss between predictions and labels, and a constant
learning rate."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common import Batch, Inputs, Method, Position

Loss = Callable[[Tensor, Tensor], Tensor]


class SingleLoss(Method):
    """The training procedure.

    `modules` holds the model, under the reference's names; `model` predicts `[N]` of inputs.
    `limit` is the maximum of the gradients' common norm.
    """

    def __init__(
        self,
        modules: nn.Module,
        model: Callable[[Inputs], Tensor],
        optimizer: torch.optim.Optimizer,
        loss: Loss = F.l1_loss,
        limit: float | None = None,
    ) -> None:
        self.modules = modules
        self.model = model
        self.optimizer = optimizer
        self.loss = loss
        self.limit = limit

    def train_step(self, position: Position, batch: Batch) -> float:
        self.modules.train()
        self.optimizer.zero_grad()
        prediction = self.model(batch.input)
        loss = self.loss(prediction, batch.labels)
        loss.backward()
        if self.limit is not None:
            nn.utils.clip_grad_norm_(self.modules.parameters(), self.limit)
        self.optimizer.step()
        return self.report(prediction, loss)

    @torch.no_grad()
    def predict(self, batch: Batch) -> Tensor:
        self.modules.eval()
        return self.model(batch.input)

    def validation_loss(self, prediction: Tensor, labels: Tensor) -> float:
        return self.loss(prediction, labels).item()
