"""Predicts with a checkpoint of the built-in method `lf-dnn`, to compare with what its worker predicted:

python compare.py CHECKPOINT DATASET ENCODER [reference|corrected]
"""

import csv
import sys

import torch

import halfheard
from model import LateFusion

DROPOUTS = ("text_dropout", "audio_dropout", "vision_dropout", "post_fusion_dropout")


def load(checkpoint, dataset, encoder, fidelity="reference"):
    """The model, in the sizes that the checkpoint has."""
    tensors, _ = halfheard.read_tensors(checkpoint)
    hyper = {
        "text_hidden": tensors["text_subnet.rnn.weight_hh_l0"].shape[1],
        "text_out": len(tensors["text_subnet.linear_1.weight"]),
        "audio_hidden": len(tensors["audio_subnet.linear_1.weight"]),
        "vision_hidden": len(tensors["video_subnet.linear_1.weight"]),
        "post_fusion_dim": len(tensors["post_fusion_layer_1.weight"]),
        **dict.fromkeys(DROPOUTS, 0.0),
    }
    model = LateFusion(hyper, dataset.test.audio.shape[2], dataset.test.vision.shape[2], encoder, fidelity).eval()
    model.load_built_in(checkpoint)
    return model


def main(checkpoint, data, encoder, fidelity="reference"):
    dataset = halfheard.Dataset(data)
    model = load(checkpoint, dataset, encoder, fidelity)

    def predict(batch):
        with torch.no_grad():
            return model(batch, "cpu") + dataset.protocol.neutral

    rows = halfheard.evaluate(predict, dataset, method="lf-dnn").rows()
    writer = csv.DictWriter(sys.stdout, rows[0])
    writer.writeheader()
    writer.writerows(rows)


if __name__ == "__main__":
    if not 4 <= len(sys.argv) <= 5:
        sys.exit(__doc__)
    main(*sys.argv[1:])
