"""Late fusion, the arithmetic of the built-in method `lf-dnn` with `fidelity = "reference"` and `"corrected"`.

Weights have the names of the built-in method's checkpoints, so that this model can load one: `compare.py` does.
"""

import torch
from torch import nn
from torch.nn import functional as F
from transformers import AutoModel

import halfheard

#: Where a checkpoint of the built-in method has the text encoder, which is not trained.
ENCODER = "bertmodel.model."


class FrameNet(nn.Module):
    """Audio or vision: the mean over time, batch norm, three layers."""

    def __init__(self, width, hidden, dropout):
        super().__init__()
        self.norm = nn.BatchNorm1d(width)
        self.linear_1, self.linear_2, self.linear_3 = (nn.Linear(n, hidden) for n in (width, hidden, hidden))
        self.dropout = dropout

    def forward(self, frames, lengths, fidelity):
        # The reference's mean includes the padding, which is zero.
        steps = frames.shape[1] if fidelity == "reference" else lengths.clamp_min(1).unsqueeze(1)
        mean = frames.sum(1) / steps
        # A single sample has no variance and is normed as in evaluation.
        self.norm.train(self.training and len(mean) > 1)
        x = F.dropout(self.norm(mean), self.dropout, self.training)
        for layer in (self.linear_1, self.linear_2, self.linear_3):
            x = layer(x).relu()
        return x


class TextNet(nn.Module):
    """Text: an LSTM over the encoder's outputs, and a linear layer of its last state."""

    def __init__(self, width, hidden, out, dropout):
        super().__init__()
        self.rnn = nn.LSTM(width, hidden, batch_first=True)
        self.linear_1 = nn.Linear(hidden, out)
        self.dropout = dropout

    def forward(self, words, mask, fidelity):
        if fidelity == "reference":  # It reads the padding, too, and has no dropout here.
            return self.linear_1(self.rnn(words)[0][:, -1])
        lengths = mask.sum(1).clamp_min(1).cpu()
        packed = nn.utils.rnn.pack_padded_sequence(words, lengths, batch_first=True, enforce_sorted=False)
        last = self.rnn(packed)[1][0].squeeze(0)
        return self.linear_1(F.dropout(last, self.dropout, self.training))


class LateFusion(nn.Module):
    def __init__(self, hyper, audio_dim, vision_dim, encoder_path, fidelity):
        super().__init__()
        encoder = AutoModel.from_pretrained(encoder_path, attn_implementation="sdpa").eval().requires_grad_(False)
        # In a tuple it is not a part of the state: it never changes.
        self._encoder, self.fidelity = (encoder,), fidelity
        h = hyper
        self.text_subnet = TextNet(encoder.config.hidden_size, h["text_hidden"], h["text_out"], h["text_dropout"])
        self.audio_subnet = FrameNet(audio_dim, h["audio_hidden"], h["audio_dropout"])
        self.video_subnet = FrameNet(vision_dim, h["vision_hidden"], h["vision_dropout"])
        width = h["post_fusion_dim"]
        self.post_fusion_layer_1 = nn.Linear(h["audio_hidden"] + h["vision_hidden"] + h["text_out"], width)
        self.post_fusion_layer_2 = nn.Linear(width, width)
        self.post_fusion_layer_3 = nn.Linear(width, 1)
        self.dropout = h["post_fusion_dropout"]

    def words(self, text):
        """The encoder's outputs `[B, L, H]`; padding is zero."""
        encoder, mask = self._encoder[0].to(text.device), text[:, 1]
        with torch.no_grad():
            outputs = encoder(input_ids=text[:, 0], attention_mask=mask, token_type_ids=text[:, 2])
        return outputs.last_hidden_state * mask.unsqueeze(2)

    def forward(self, batch, device):
        """Predictions `[B]`, relative to the middle of the labels' range."""
        text, audio, vision, audio_lengths, vision_lengths = (
            torch.tensor(getattr(batch, name), device=device)
            for name in ("text", "audio", "vision", "audio_lengths", "vision_lengths")
        )
        text = text.long()
        parts = [
            self.audio_subnet(audio, audio_lengths, self.fidelity),
            self.video_subnet(vision, vision_lengths, self.fidelity),
            self.text_subnet(self.words(text), text[:, 1], self.fidelity),
        ]
        x = F.dropout(torch.cat(parts, 1), self.dropout, self.training)
        x = self.post_fusion_layer_2(self.post_fusion_layer_1(x).relu()).relu()
        return self.post_fusion_layer_3(x).squeeze(1)

    def load_built_in(self, path):
        """Loads a checkpoint of the built-in method. Its encoder is left out: it is that of the folder."""
        tensors, _ = halfheard.read_tensors(path)
        weights = {name: torch.tensor(array) for name, array in tensors.items() if not name.startswith(ENCODER)}
        # PyTorch counts batches, too, which nothing reads.
        counts = {name: value for name, value in self.state_dict().items() if name.endswith("num_batches_tracked")}
        self.load_state_dict({**counts, **weights})
