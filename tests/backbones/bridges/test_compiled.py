"""Backbones compiled with `torch.compile` get the bridge of the module inside."""

import pytest
import torch
from torch import nn
from toys import toy_features, toy_split
from transformers import GPT2Config, GPT2Model

from odmt_sdk import ODMTConfig, ODMTWrapper, SASRec
from odmt_sdk.pipeline import fit

D = 8
ROWS = torch.tensor([[0, 3, 1, 2], [4, 5, 6, 7]])


class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.mix = nn.Linear(D, D)

    def forward(self, seq_emb, padding_mask):
        return self.mix(seq_emb.masked_fill(padding_mask.unsqueeze(-1), 0).cumsum(1))


class Ids(nn.Module):
    def __init__(self):
        super().__init__()
        self.item_embedding = nn.Embedding(30, D, padding_idx=0)
        self.gru = nn.GRU(D, D, batch_first=True)

    def forward(self, item_seq):
        return self.gru(self.item_embedding(item_seq))[0]


def gpt2():
    sizes = {"n_embd": D, "n_layer": 1, "n_head": 2, "vocab_size": 10, "n_positions": 16}
    drop = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    return GPT2Model(GPT2Config(bos_token_id=0, eos_token_id=0, **sizes, **drop))


BUILDERS = {
    "built in": lambda: SASRec(D, dropout=0.0),
    "torch": lambda: nn.GRU(D, D),
    "transformers": gpt2,
    "own": Own,
}


def wrap(backbone):
    torch.manual_seed(0)
    return ODMTWrapper(backbone, toy_features(), ODMTConfig(max_seq_length=6)).eval()


@pytest.mark.parametrize("build", BUILDERS.values(), ids=list(BUILDERS))
def test_a_compiled_backbone_gives_the_loss_of_the_same_not_compiled(build):
    graphs = []

    def backend(graph, example_inputs):
        graphs.append(graph)
        return graph.forward

    backbone = build()
    expected = wrap(backbone)
    torch._dynamo.reset()
    model = wrap(torch.compile(backbone, backend=backend))
    assert not graphs  # the check does not compile anything
    assert model.backbone_name == type(backbone).__name__
    assert list(model.state_dict()) == list(expected.state_dict())
    torch.testing.assert_close(model(ROWS).loss, expected(ROWS).loss)
    if not isinstance(backbone, nn.GRU):  # torch does not compile its recurrent layers
        assert graphs


def test_weights_go_either_way_between_compiled_and_not():
    plain, compiled = wrap(SASRec(D)), wrap(torch.compile(SASRec(D), backend="eager"))
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.add_(1)
    compiled.load_state_dict(plain.state_dict())
    for first, second in zip(plain.parameters(), compiled.parameters(), strict=True):
        assert torch.equal(first, second)
    plain.load_state_dict(compiled.state_dict())


def test_one_that_is_trained_is_saved_as_the_built_in_backbone_that_it_is(tmp_path):
    split = toy_split()
    features = toy_features(item_ids=[f"item-{i}" for i in range(12)])
    model = ODMTWrapper(torch.compile(SASRec(D), backend="eager"), features)
    fit(
        model, split, tmp_path, epochs=1, batch_size=16, warmup_steps=0,
        k=(5,), metric="ndcg@5", disable_tqdm=True, use_cpu=True,
    )  # fmt: skip
    loaded = ODMTWrapper.from_pretrained(tmp_path)
    assert type(loaded.unwrap_backbone()) is SASRec
    first, second = (m.recommend([["item-1", "item-2"]], k=3) for m in (model, loaded))
    assert first.item_ids == second.item_ids


def test_models_of_item_ids_run_without_being_compiled_and_say_so():
    with pytest.warns(UserWarning, match="Ids runs without being compiled, .* compile the wrapper"):
        model = wrap(torch.compile(Ids(), backend="eager"))
    assert type(model.unwrap_backbone()) is Ids
