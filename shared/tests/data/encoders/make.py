"""Writes the small encoders of this folder with the field's own programs.

Run with torch 2.11.0, transformers 4.57.1 and safetensors 0.8.0:

    python make.py

`bert/` has one BERT under the names that its models have without a prefix; the folders beside it have
the same weights as they are published: under the hub's older names, in the formats of `torch.save`
before and since PyTorch 1.6, in several files, in other precisions. `roberta/` has a RoBERTa.
`states.json` in both holds what transformers computes with them.
"""

import json
import shutil
from collections import OrderedDict
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import BertConfig, BertForPreTraining, BertModel
from transformers import RobertaConfig, RobertaForMaskedLM

HERE = Path(__file__).parent
SIZES = dict(
    hidden_size=8,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=12,
    hidden_dropout_prob=0.1,
    attention_probs_dropout_prob=0.1,
)


def folder(name, config=None):
    path = HERE / name
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    if config is not None:
        shutil.copy(HERE / config / "config.json", path)
    return path


def weights(model, seed):
    """Fresh weights that differ in every place, layer norms too."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator) * 0.3
            weight.copy_(noise + 1 if name.endswith("LayerNorm.weight") else noise)
    return model.eval()


def states(model, ids, mask):
    ids, mask = torch.tensor(ids), torch.tensor(mask)
    with torch.no_grad():
        out = model(input_ids=ids, attention_mask=mask).last_hidden_state
    return dict(ids=ids.tolist(), mask=mask.tolist(), states=out.tolist())


def write_json(path, value):
    path.write_text(json.dumps(value, indent=1) + "\n")


def old_names(state):
    def old(name):
        return name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        )

    return OrderedDict((old(name), tensor) for name, tensor in state.items())


def bert():
    config = BertConfig(vocab_size=512, max_position_embeddings=16, **SIZES)
    model = weights(BertForPreTraining(config), 1)
    bare = BertModel(config, add_pooling_layer=False)
    plain = {
        name.removeprefix("bert."): tensor.clone()
        for name, tensor in model.state_dict().items()
        if name.startswith("bert.") and "pooler" not in name and "position_ids" not in name
    }
    bare.load_state_dict(plain)
    path = folder("bert")
    config.architectures = ["BertModel"]
    config.to_json_file(path / "config.json", use_diff=False)
    save_file(plain, path / "model.safetensors")
    mask = [[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 0, 0]]
    ids = [[101, 7, 300, 9, 511, 102], [101, 8, 102, 0, 0, 0], [101, 44, 45, 102, 0, 0]]
    write_json(path / "states.json", states(bare.eval(), ids, mask))

    # As bert-base-uncased lies in the hub: old names, heads, a buffer, words and decoder shared.
    published = old_names(model.state_dict())
    published["bert.embeddings.position_ids"] = torch.arange(16).unsqueeze(0)
    decoder = "cls.predictions.decoder.weight"
    words = "bert.embeddings.word_embeddings.weight"
    published[decoder] = published[words]
    alone = {name: tensor.clone() for name, tensor in published.items()}
    path = folder("bert-published", "bert")
    save_file(alone, path / "model.safetensors", metadata={"format": "pt"})

    # Tables converted from TensorFlow lie crosswise in memory.
    crosswise = OrderedDict(published)
    for name in list(crosswise):
        if name.endswith("dense.weight"):
            crosswise[name] = crosswise[name].t().contiguous().t()
    crosswise["bert.encoder.layer.0.attention.self.key.bias"] = torch.nn.Parameter(
        crosswise["bert.encoder.layer.0.attention.self.key.bias"]
    )
    crosswise._metadata = OrderedDict(version=1)
    path = folder("bert-zip", "bert")
    torch.save(crosswise, path / "pytorch_model.bin")
    path = folder("bert-legacy", "bert")
    torch.save(crosswise, path / "pytorch_model.bin", _use_new_zipfile_serialization=False)

    model.bert.save_pretrained(
        folder("bert-shards", "bert"), max_shard_size="10KB", safe_serialization=True
    )
    model.bert.save_pretrained(
        folder("bert-bin-shards", "bert"), max_shard_size="10KB", safe_serialization=False
    )
    for name in ("bert-shards", "bert-bin-shards"):
        shutil.copy(HERE / "bert" / "config.json", HERE / name)

    for name, kind in (("half", torch.float16), ("bfloat", torch.bfloat16), ("double", torch.float64)):
        path = folder(f"bert-{name}", "bert")
        low = {key: tensor.to(kind) for key, tensor in plain.items()}
        if kind is torch.bfloat16:
            torch.save(low, path / "pytorch_model.bin")
        else:
            save_file(low, path / "model.safetensors")
        if kind is not torch.float64:
            again = {key: tensor.to(torch.float32) for key, tensor in low.items()}
            save_file(again, path / "expected.safetensors")


def roberta():
    config = RobertaConfig(
        vocab_size=60, max_position_embeddings=18, type_vocab_size=1, layer_norm_eps=1e-5, **SIZES
    )
    config.architectures = ["RobertaForMaskedLM"]
    model = weights(RobertaForMaskedLM(config), 2)
    path = folder("roberta")
    config.to_json_file(path / "config.json", use_diff=False)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    save_file(state, path / "model.safetensors")
    tokens = ["<s>", "<pad>", "</s>", "<unk>"] + [f"w{i}" for i in range(55)] + ["<mask>"]
    write_json(path / "vocab.json", {token: i for i, token in enumerate(tokens)})
    ids = [[0, 7, 33, 9, 58, 2], [0, 8, 2, 1, 1, 1], [0, 44, 3, 2, 1, 1]]
    mask = [[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 0, 0]]
    write_json(path / "states.json", states(model.roberta, ids, mask))


bert()
roberta()
