"""Trains the late fusion of `model.py` as the built-in method `lf-dnn` is trained."""

import io
import math

import halfheard

JOB = halfheard.job()  # Before PyTorch is imported: what is printed from here on goes to standard error.

import numpy as np  # noqa: E402
import torch  # noqa: E402

from model import LateFusion  # noqa: E402


class Training:
    def __init__(self, job):
        torch.set_num_threads(job.threads)
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.manual_seed(job.epoch_seed(0))
        self.hyper, self.device, self.middle = job.hyper, job.device, job.dataset.protocol.neutral
        train = job.dataset.train
        dims = train.audio.shape[2], train.vision.shape[2]
        self.model = LateFusion(job.hyper, *dims, job.encoder_path, job.regime.fidelity).to(self.device)
        self.optimizer = torch.optim.Adam(
            self.model.parameters(), lr=self.hyper["learning_rate"], weight_decay=self.hyper["weight_decay"]
        )
        self.best, self.waited = math.inf, 0

    def fit_epoch(self, job, epoch):
        torch.manual_seed(job.epoch_seed(epoch))
        self.model.train()
        losses = []
        for batch, labels in job.train_batches(epoch, self.hyper["batch_size"]):
            self.optimizer.zero_grad()
            target = torch.tensor(labels - np.float32(self.middle), device=self.device)
            loss = (self.model(batch, self.device) - target).abs().mean()
            loss.backward()
            self.optimizer.step()
            losses.append(loss.item())
        return sum(losses) / len(losses)

    def predict(self, batch):
        self.model.eval()
        with torch.no_grad():
            return self.model(batch, self.device) + self.middle

    def is_done(self, job, epoch, predictions):
        """Early stopping on the validation split, which `predictions` are of unless the test split alone selects."""
        if job.regime.selection == "test" or not self.hyper["early_stop"]:
            return False
        loss = float(np.abs(predictions - job.dataset.valid.labels).mean())
        self.best, self.waited = (loss, 0) if loss < self.best else (self.best, self.waited + 1)
        return self.waited >= self.hyper["early_stop"]

    def checkpoint(self):
        return self.model.state_dict()

    def state(self):
        # An optimizer's state is a tree of tensors: PyTorch writes it.
        content = io.BytesIO()
        torch.save([self.model.state_dict(), self.optimizer.state_dict(), self.best, self.waited], content)
        return content.getvalue()

    def load(self, state):
        if isinstance(state, dict):
            self.model.load_state_dict({name: torch.tensor(array) for name, array in state.items()})
            return
        weights, optimizer, self.best, self.waited = torch.load(io.BytesIO(state), map_location=self.device)
        self.model.load_state_dict(weights)
        self.optimizer.load_state_dict(optimizer)


if __name__ == "__main__":
    halfheard.run(Training)
