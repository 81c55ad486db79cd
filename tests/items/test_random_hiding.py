"""Random hiding of modalities and IDs during training, and its frequency."""

import pytest
import torch

from odmt_sdk.features.modality import ModalityTokens
from odmt_sdk.items.item_encoder import ItemEncoder
from odmt_sdk.items.random_hiding import choose_hidden


def test_each_is_hidden_as_often_as_its_probability_says():
    present = torch.ones(40_000, 3, dtype=torch.bool)
    hidden, ids = choose_hidden(present, modality_dropout=0.3, id_dropout=0.2)
    assert float(ids.float().mean()) == pytest.approx(0.2, abs=0.01)
    # an item with a hidden ID keeps its content if all of it were to be hidden
    expected = 0.3 - 0.2 * 0.3**3
    assert hidden.float().mean(0).tolist() == pytest.approx([expected] * 3, abs=0.01)
    both = (hidden[:, 0] & hidden[:, 1]).float().mean()
    assert float(both) == pytest.approx(0.3**2, abs=0.01)  # independently


def test_nobody_loses_everything():
    present = torch.rand(5000, 2) < 0.5
    hidden, ids = choose_hidden(present, modality_dropout=0.9, id_dropout=0.9)
    assert not (hidden & ~present).any()
    left = (present & ~hidden).any(1) | ~ids
    assert left.all()
    assert not ids[~present.any(1)].any()  # without content, the ID is never hidden
    assert ids.any()
    assert hidden.all(1).any()  # the ID is left


def test_nothing_is_drawn_for_a_probability_of_zero():
    state = torch.get_rng_state()
    hidden, ids = choose_hidden(torch.ones(9, 2) > 0, modality_dropout=0.0, id_dropout=0.0)
    assert not hidden.any()
    assert not ids.any()
    assert torch.equal(torch.get_rng_state(), state)


def make(**settings):
    return ItemEncoder(
        num_items=9,
        hidden_size=8,
        modality_widths={"text": 5, "image": 6},
        dropout=0.0,
        **settings,
    )


def some_features(num_items=9):
    return {
        "text": ModalityTokens(torch.randn(num_items, 4, 5), torch.tensor([2] * num_items)),
        "image": ModalityTokens(torch.randn(num_items, 3, 6), torch.tensor([3] * num_items)),
    }


def test_what_is_hidden_is_not_read_and_learns_nothing():
    encoder, features = make(modality_dropout=0.5, id_dropout=0.5), some_features()
    for tokens, _ in features.values():
        tokens.requires_grad_()
    item_ids = torch.arange(1, 10)
    torch.manual_seed(3)
    present = torch.ones(9, 2, dtype=torch.bool)
    hidden, ids = choose_hidden(present, modality_dropout=0.5, id_dropout=0.5)
    assert hidden.any()
    assert ids.any()
    torch.manual_seed(3)
    sum(e.sum() for e in encoder(item_ids, features).values()).backward()
    for m, (tokens, lengths) in enumerate(features.values()):
        read = tokens.grad.flatten(1).any(1)
        assert torch.equal(read, ~hidden[:, m])
        assert not tokens.grad[:, int(lengths[0]) :].any()
    assert torch.equal(encoder.id_embedding.weight.grad[1:].any(1), ~ids)
    assert encoder.missing_tokens["id"].grad.any()


def test_a_hidden_modality_is_as_an_absent_one():
    encoder, features = make(modality_dropout=0.5), some_features()
    item_ids = torch.arange(1, 10)
    torch.manual_seed(1)
    hidden, _ = choose_hidden(
        torch.ones(9, 2, dtype=torch.bool), modality_dropout=0.5, id_dropout=0.0
    )
    torch.manual_seed(1)
    got = encoder(item_ids, features)
    lacking = {
        name: ModalityTokens(tokens, lengths.masked_fill(hidden[:, m], 0))
        for m, (name, (tokens, lengths)) in enumerate(features.items())
    }
    expected = encoder.eval()(item_ids, lacking)
    for source in encoder.sources:
        torch.testing.assert_close(got[source], expected[source])


def test_eval_mode_hides_nothing():
    encoder, features = make(modality_dropout=0.9, id_dropout=0.9).eval(), some_features()
    plain = make().eval()
    plain.load_state_dict(encoder.state_dict())
    for source, embeddings in encoder(torch.arange(1, 10), features).items():
        assert torch.equal(embeddings, plain(torch.arange(1, 10), features)[source])


def test_ids_alone_are_never_hidden():
    encoder = ItemEncoder(
        num_items=9, hidden_size=8, modality_widths={}, dropout=0.0, id_dropout=0.9
    )
    encoder(torch.arange(1, 10))["id"].sum().backward()
    assert encoder.id_embedding.weight.grad[1:].any(1).all()


class TestUnseen:
    def test_their_own_id_is_not_read(self):
        encoder, features = make().eval(), some_features()
        item_ids = torch.arange(1, 10)
        before = encoder(item_ids, features)["id"]
        encoder.set_unseen(torch.arange(10) == 4)
        after = encoder(item_ids, features)
        kept = item_ids != 4
        assert torch.equal(after["id"][kept], before[kept])
        assert not torch.allclose(after["id"][~kept], before[~kept])
        with torch.no_grad():
            encoder.id_embedding.weight[4] = float("nan")
        assert torch.equal(encoder(item_ids, features)["id"], after["id"])

    def test_in_training_they_learn_an_id(self):
        encoder = make()
        encoder.set_unseen(torch.ones(10, dtype=torch.bool))
        encoder(torch.arange(1, 10), some_features())["id"].sum().backward()
        assert encoder.id_embedding.weight.grad[1:].any(1).all()

    def test_the_unknown_id_starts_at_zero_and_learns(self):
        encoder = make(id_dropout=0.5)
        assert not encoder.missing_tokens["id"].any()
        optimizer = torch.optim.SGD(encoder.parameters(), lr=0.1)
        encoder(torch.arange(1, 10), some_features())["id"].sum().backward()
        optimizer.step()
        assert encoder.missing_tokens["id"].any()

    def test_more_items(self):
        encoder = make().eval()
        with torch.no_grad():
            encoder.missing_tokens["id"].fill_(0.5)
        features = some_features(11)
        known = {name: ModalityTokens(t[:9], n[:9]) for name, (t, n) in features.items()}
        before = encoder(torch.arange(1, 10), known)
        encoder.add_items(2)
        assert encoder.unseen.tolist() == [False] * 10 + [True] * 2
        assert encoder.id_embedding.weight.shape == (12, 8)
        assert encoder.id_embedding.weight.requires_grad
        assert encoder.id_embedding.padding_idx == 0
        after = encoder(torch.arange(1, 12), features)
        for source in encoder.sources:
            torch.testing.assert_close(after[source][:9], before[source])
        encoder.set_unseen(torch.zeros(12, dtype=torch.bool))
        assert torch.equal(encoder(torch.arange(1, 12), features)["id"], after["id"])
