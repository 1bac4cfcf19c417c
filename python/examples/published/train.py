"""MulT (Tsai et al., ACL 2019) from its authors' repository, as a method of a sweep. README.md says how to get it."""

import io
import sys
from types import SimpleNamespace

import halfheard

JOB = halfheard.job()  # Before anything that might print.

import torch  # noqa: E402
from torch.nn.utils import clip_grad_norm_  # noqa: E402
from transformers import AutoModel  # noqa: E402

sys.path.insert(0, "Multimodal-Transformer")  # Not part of Halfheard.
from modules import position_embedding  # noqa: E402
from src.models import MULTModel  # noqa: E402

# Its code is of 2019. Since then, PyTorch's copies keep the order of dimensions, which a `view` there cannot have.
make_positions = position_embedding.make_positions
position_embedding.make_positions = lambda *about: make_positions(*about).contiguous()


class MulT:
    def __init__(self, job):
        torch.set_num_threads(job.threads)
        torch.manual_seed(job.epoch_seed(0))
        self.hyper, self.device, train = job.hyper, job.device, job.dataset.train
        self.encoder = AutoModel.from_pretrained(job.encoder_path).eval().to(self.device)
        widths = {"l": self.encoder.config.hidden_size, "a": train.audio.shape[2], "v": train.vision.shape[2]}
        settings = {key: value for key, value in job.hyper.items() if key not in ("batch_size", "lr", "clip")}
        settings.update({f"orig_d_{name}": width for name, width in widths.items()})
        # All three branches, as its main.py has it where no flag asks for one of them.
        settings.update(lonly=True, aonly=True, vonly=True, attn_mask=True, output_dim=1)
        self.model = MULTModel(SimpleNamespace(**settings)).to(self.device)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=self.hyper["lr"])

    def forward(self, batch):
        text, audio, vision = (torch.tensor(x, device=self.device) for x in (batch.text, batch.audio, batch.vision))
        ids, mask, segments = text.long().unbind(1)
        with torch.no_grad():
            words = self.encoder(input_ids=ids, attention_mask=mask, token_type_ids=segments).last_hidden_state
        return self.model(words * mask.unsqueeze(2), audio, vision)[0].squeeze(1)

    def fit_epoch(self, job, epoch):
        torch.manual_seed(job.epoch_seed(epoch))
        self.model.train()
        losses = []
        for batch, labels in job.train_batches(epoch, self.hyper["batch_size"]):
            self.optimizer.zero_grad()
            loss = (self.forward(batch) - torch.tensor(labels, device=self.device)).abs().mean()
            loss.backward()
            clip_grad_norm_(self.model.parameters(), self.hyper["clip"])
            self.optimizer.step()
            losses.append(loss.item())
        return sum(losses) / len(losses)

    def predict(self, batch):
        self.model.eval()
        with torch.no_grad():
            return self.forward(batch)

    def state(self):
        torch.save([self.model.state_dict(), self.optimizer.state_dict()], content := io.BytesIO())
        return content.getvalue()

    def load(self, state):
        for part, saved in zip((self.model, self.optimizer), torch.load(io.BytesIO(state), map_location=self.device)):
            part.load_state_dict(saved)


if __name__ == "__main__":
    halfheard.run(MulT, batch_size=64)
