"""Ridge regression on means over the steps that are there, and on counts of tokens. Each epoch adds the training split
once more, with other steps missing."""

import numpy as np

import halfheard


class Ridge:
    def __init__(self, job):
        self.buckets, self.penalty = job.hyper["buckets"], job.hyper["penalty"]
        self.values = {}

    def features(self, batch):
        def mean(steps, kept):
            return (steps * kept[..., None]).sum(1) / np.maximum(kept.sum(1), 1)[:, None]

        tokens = np.where(batch.text_kept == 1, batch.text[:, 0] % self.buckets, -1)
        counts = (tokens[:, None] == np.arange(self.buckets)[:, None]).sum(2)
        shares = [kept.mean(1, keepdims=True) for kept in (batch.text_kept, batch.audio_kept, batch.vision_kept)]
        return np.hstack([counts, mean(batch.audio, batch.audio_kept), mean(batch.vision, batch.vision_kept), *shares])

    def standardized(self, x):
        return np.hstack([(x - self.values["mean"]) / self.values["scale"], np.ones((len(x), 1))])

    def fit_epoch(self, job, epoch):
        x, labels = self.features(job.train_split(epoch)), job.dataset.train.labels
        if not self.values:
            width = x.shape[1] + 1
            self.values = {"mean": x.mean(0), "scale": x.std(0) + 1e-3, "sums": np.zeros((width, width + 1))}
        z = self.standardized(x)
        self.values["sums"] += z.T @ np.column_stack([z, labels])
        gram, moments = self.values["sums"][:, :-1], self.values["sums"][:, -1]
        self.values["weights"] = np.linalg.solve(gram + self.penalty * np.eye(len(gram)), moments)
        return np.square(z @ self.values["weights"] - labels).mean()

    def predict(self, batch):
        return self.standardized(self.features(batch)) @ self.values["weights"]

    def state(self):
        return self.values

    def load(self, state):
        self.values = state


if __name__ == "__main__":
    halfheard.run(Ridge)
