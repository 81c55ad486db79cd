"""The public behaviour of the wrapper."""

import copy
import functools
import random

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from toys import HIDDEN_SIZE, MyModel, toy_features, toy_model

from odmt_sdk import ItemFeatures, ItemVocabulary, ODMTConfig, ODMTWrapper, SASRec
from odmt_sdk.features.joined import JoinedFeatures
from odmt_sdk.items.embedder import register_fusion
from odmt_sdk.items.fusions.id_only import IDEncoder


def test_one_line_and_a_training_step():
    model = ODMTWrapper(backbone=MyModel(), item_features=toy_features())
    output = model(torch.tensor([[0, 3, 1, 2], [4, 5, 6, 7]]))
    output.loss.backward()
    assert model.hidden_size == HIDDEN_SIZE
    assert model.sources == ("id", "text", "image")
    assert output.labels.tolist() == [0, 1, 4, 5, 6]  # 1 2 | 5 6 7 among 1..7
    assert output.candidate_ids.tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert set(output.logits) == set(model.sources)
    assert output.logits["text"].shape == (5, 7)
    assert "cross_entropy/image" in output.losses
    assert output["loss"] is output.loss
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name


def test_the_users_model_is_copied_never_changed():
    backbone = MyModel().eval()
    before = copy.deepcopy(backbone.state_dict())
    model = ODMTWrapper(backbone=backbone, item_features=toy_features())
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    model(torch.tensor([[1, 2, 3], [4, 5, 6]])).loss.backward()
    optimizer.step()
    assert not backbone.training
    for name, value in backbone.state_dict().items():
        assert torch.equal(value, before[name])
    towers = model.backbones.by_source
    assert not torch.equal(towers["id"].mix.weight, before["mix.weight"])
    assert not torch.equal(towers["id"].mix.weight, towers["text"].mix.weight)


def test_one_backbone_for_all_sources():
    model = toy_model(share_backbone=True)
    assert list(model.backbones.by_source) == ["shared"]
    model(torch.tensor([[1, 2, 3]])).loss.backward()


@pytest.mark.parametrize(
    ("given", "advice"),
    [
        (ItemVocabulary(["a", "b"]), "ItemVocabulary.* vocabulary= for a model that uses only IDs"),
        ({"text": torch.zeros(3, 1, 4)}, r"dict.*from_tensors\(text="),
        (torch.zeros(3, 4), r"Tensor.*from_tensors\(text="),
        ("features", r"str.*ItemFeatures\.open\(path\)"),
        (pd.DataFrame({"item_id": [1], "text": ["a"]}), r"DataFrame.*from_items\(table"),
        ([{"item_id": 1, "text": "a"}], r"list.*from_items\(table"),
    ],
    ids=["vocabulary", "tensors", "tensor", "path", "table", "rows"],
)
def test_other_things_than_features_are_refused_everywhere(given, advice, tmp_path):
    model = toy_model()
    folder = model.save_pretrained(tmp_path / "adapter")
    for use in (
        lambda: ODMTWrapper(MyModel(), given),
        lambda: ODMTWrapper(MyModel()).set_items(given),
        lambda: setattr(model, "item_features", given),
        lambda: model.add_items(given),
        lambda: ODMTWrapper.from_pretrained(folder, MyModel(), given),
    ):
        with pytest.raises(TypeError, match=f"^item_features is a {advice}"):
            use()


def test_features_given_later():
    model = ODMTWrapper(backbone=MyModel())
    for call in (
        lambda: model(torch.tensor([[1, 2]])),
        lambda: model.recommend([[1]]),
        lambda: model.num_items,
        lambda: model.sources,
    ):
        with pytest.raises(ValueError, match="this model has no items yet: pass item_features="):
            call()
    model.set_items(toy_features())
    assert model(torch.tensor([[1, 2]])).loss.isfinite()
    with pytest.raises(ValueError, match="the items of this model are already set"):
        model.set_items(toy_features())
    with pytest.raises(ValueError, match="nothing given: pass item_features="):
        ODMTWrapper(backbone=MyModel()).set_items()


def test_a_vocabulary_selects_and_orders_features():
    features = toy_features(item_ids=[f"item-{i}" for i in range(12)])
    model = ODMTWrapper(MyModel(), features, vocabulary=["item-5", "item-2"])
    assert model.num_items == 2
    expected = features["text"].tokens[[6, 3]]
    assert torch.equal(model.item_features["text"].tokens[1:], expected)


def test_the_bare_backbone_with_ids_alone():
    model = ODMTWrapper(
        SASRec(8), config=ODMTConfig(fusion="id"), vocabulary=ItemVocabulary(["a", "b", "c"])
    )
    assert model.sources == ("id",)
    assert isinstance(model.item_encoder, IDEncoder)
    output = model(torch.tensor([[1, 2], [3, 1]]))
    assert set(output.losses) == {"cross_entropy/id", "distillation_weight"}
    assert model.recommend([["a", "c"]], k=3).item_ids == [["b"]]


def test_fusions_are_a_registry():
    @register_fusion("mine")
    def build(config, num_items, hidden_size, modality_widths):
        return IDEncoder(num_items=num_items, hidden_size=hidden_size)

    assert toy_model(fusion="mine").sources == ("id",)
    with pytest.raises(ValueError, match="a fusion named 'mine' is registered already"):
        register_fusion("mine")(build)
    with pytest.raises(ValueError, match="fusion='other' is not registered; known are"):
        toy_model(fusion="other")


class TestHiddenSize:
    def test_from_an_attribute(self):
        assert ODMTWrapper(SASRec(24)).hidden_size == 24

    def test_from_a_config(self):
        backbone = MyModel(16)
        backbone.config = type("Config", (), {"d_model": 16})()
        assert ODMTWrapper(backbone).hidden_size == 16

    def test_from_the_shapes_of_parameters(self):
        assert ODMTWrapper(MyModel(10)).hidden_size == 10

    def test_an_attribute_that_does_not_fit_is_not_believed(self):
        backbone = MyModel(10)
        backbone.hidden_size = 99
        assert ODMTWrapper(backbone).hidden_size == 10

    def test_ambiguous_shapes_ask(self):
        class Scale(nn.Module):
            def __init__(self):
                super().__init__()
                self.a, self.b = nn.Parameter(torch.ones(4)), nn.Parameter(torch.ones(6))

            def forward(self, inputs_embeds, attention_mask):
                return inputs_embeds * self.a.sum() * self.b.sum()

        message = r"Scale accepts embeddings of several widths \(\[4, 6\]\): .* hidden_size="
        with pytest.raises(ValueError, match=message):
            ODMTWrapper(Scale())
        assert ODMTWrapper(Scale(), hidden_size=6).hidden_size == 6

    def test_nothing_passes(self):
        class Broken(nn.Module):
            def __init__(self):
                super().__init__()
                self.weight = nn.Parameter(torch.ones(4))

            def forward(self, inputs_embeds, attention_mask):
                raise RuntimeError("no luck")

        with pytest.raises(ValueError, match="could not find the hidden size of Broken") as error:
            ODMTWrapper(Broken())
        assert "no luck" in str(error.value.__cause__)

    def test_heads_must_divide_it(self):
        with pytest.raises(ValueError, match="hidden_size=8 is not divisible by num_heads=3"):
            ODMTWrapper(MyModel(8), config=ODMTConfig(num_heads=3))


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        (MyModel, r"backbone is the class MyModel, pass an instance: MyModel\(...\)"),
        (7, "backbone must be a torch.nn.Module or another callable, got int"),
        (lambda: 7, "without arguments, .* but it returned int: return a torch.nn.Module"),
        ({"id": 7}, "backbone must be a torch.nn.Module or another callable, got int"),
    ],
)
def test_a_backbone_must_be_a_module(backbone, message):
    with pytest.raises(TypeError, match=message):
        ODMTWrapper(backbone, toy_features())


def test_a_backbone_must_keep_the_shape():
    class Shorter(MyModel):
        def forward(self, inputs_embeds, attention_mask):
            return super().forward(inputs_embeds, attention_mask)[:, 1:]

    with pytest.raises(ValueError, match="Shorter"):
        ODMTWrapper(Shorter(), toy_features(), hidden_size=8)
    model = ODMTWrapper(
        Shorter(), toy_features(), hidden_size=8, check=False, bridge=lambda module, _: module
    )
    with pytest.raises(ValueError, match=r"Shorter returned \(1, 1, 8\) for inputs_embeds of"):
        model(torch.tensor([[1, 2, 3]]))


def padding_model(kind: str) -> ODMTWrapper:
    backbones = {
        "sasrec": lambda: SASRec(8, dropout=0.0, max_seq_length=4),
        "gru": lambda: nn.GRU(8, 8, batch_first=True),
        "last only": LastState,
        "ids": MyModel,
    }
    config = ODMTConfig(dropout=0.0, max_seq_length=4, fusion="id" if kind == "ids" else "odmt")
    features = toy_features() if kind != "ids" else None
    vocabulary = range(1, 13) if kind == "ids" else None
    return ODMTWrapper(
        backbones[kind](), features, config, vocabulary=vocabulary, hidden_size=8, check=False
    )


class LastState(nn.Module):
    """Returns only the state at the last position."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(8, 8, batch_first=True)

    def forward(self, inputs_embeds):
        return self.rnn(inputs_embeds)[0][:, -1]


def loss_and_gradients(model, item_ids):
    model.zero_grad()
    loss = model(item_ids).loss
    loss.backward()
    return loss.detach(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


class TestSequences:
    def test_left_padding_changes_nothing(self):
        model = toy_model(SASRec(8, dropout=0.0, max_seq_length=6), dropout=0.0)
        short = torch.tensor([[3, 1, 2], [4, 5, 6]])
        padded = torch.cat([torch.zeros(2, 2, dtype=torch.long), short], dim=1)
        torch.testing.assert_close(model(short).loss, model(padded).loss)

    def test_long_sequences_are_cut_to_the_latest(self):
        model = toy_model(max_seq_length=2, dropout=0.0)
        long = torch.tensor([[9, 8, 3, 1, 2], [7, 6, 4, 5, 6]])
        torch.testing.assert_close(model(long).loss, model(long[:, -3:]).loss)
        latest = model.encode_sequences(long[:, -2:])["id"]
        torch.testing.assert_close(model.encode_sequences(long)["id"], latest)

    def test_the_batch_and_the_catalogue_give_the_same_embeddings(self):
        model = toy_model().eval()
        item_ids = torch.tensor([[0, 3, 1], [4, 5, 6]])
        direct = model.encode_sequences(item_ids)
        through = model.encode_sequences(item_ids, item_embeddings=model.encode_catalogue())
        for source in model.sources:
            torch.testing.assert_close(direct[source], through[source])

    @pytest.mark.parametrize("kind", ["sasrec", "gru", "last only", "ids"])
    def test_any_placement_of_padding_gives_the_same(self, kind):
        model = padding_model(kind)
        draw = random.Random(0)
        for _ in range(4):
            sequences = [
                [draw.randint(1, 12) for _ in range(draw.randint(1, 7))]
                for _ in range(draw.randint(1, 4))
            ]
            longest = max(map(len, sequences)) + draw.randint(0, 3)
            left, right, mixed, between = torch.zeros(4, len(sequences), longest).long()
            for user, sequence in enumerate(sequences):
                items, free = torch.tensor(sequence), longest - len(sequence)
                left[user, free:] = right[user, : len(sequence)] = items
                first = draw.randint(0, free)
                mixed[user, first : first + len(sequence)] = items
                between[user, sorted(draw.sample(range(longest), len(sequence)))] = items
            expected, gradients = loss_and_gradients(model, left)
            states = model.encode_sequences(left)
            for item_ids in (right, mixed, between):
                loss, got = loss_and_gradients(model, item_ids)
                assert torch.equal(loss, expected)
                for name, gradient in gradients.items():
                    assert torch.equal(got[name], gradient), name
                for source, state in model.encode_sequences(item_ids).items():
                    assert torch.equal(state, states[source])
                # masked items, and unmasked padding
                real = item_ids != 0
                assert torch.equal(model(item_ids.where(real, 12), real).loss, expected)
                assert torch.equal(model(item_ids, torch.ones_like(item_ids)).loss, expected)

    def test_padding_on_the_right_beyond_what_is_read(self):
        model = toy_model(max_seq_length=2, dropout=0.0)
        right = torch.tensor([[3, 1, 2, 0, 0, 0, 0], [4, 5, 6, 7, 0, 0, 0]])
        output = model(right)
        assert len(output.labels) == 4
        left = torch.tensor([[3, 1, 2], [5, 6, 7]])
        torch.testing.assert_close(output.loss, model(left).loss)

    @pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.int8, torch.uint8], ids=str)
    def test_rows_of_any_integers(self, dtype):
        model = toy_model(dropout=0.0)
        rows = torch.tensor([[0, 3, 1, 2], [4, 5, 6, 7]])
        torch.testing.assert_close(model(rows.to(dtype)).loss, model(rows).loss)
        torch.testing.assert_close(
            model.encode_sequences(rows.to(dtype)), model.encode_sequences(rows)
        )
        embeddings = model.encode_catalogue()
        torch.testing.assert_close(
            model.encode_sequences(rows.to(dtype), item_embeddings=embeddings),
            model.encode_sequences(rows, item_embeddings=embeddings),
        )

    def test_right_padding_reads_the_last_real_item(self):
        model = toy_model().eval()
        left = model.encode_sequences(torch.tensor([[0, 0, 3, 1]]))["id"]
        right = model.encode_sequences(torch.tensor([[3, 1, 0, 0]]))["id"]
        torch.testing.assert_close(left, right)

    @pytest.mark.parametrize(
        ("item_ids", "mask", "message"),
        [
            (torch.tensor([1, 2]), None, r"must be integers of shape \(B, L\), got \(2,\)"),
            (torch.ones(1, 2), None, "must be integers of shape"),
            (torch.tensor([[1, 13]]), None, r"row 13, outside 0\.\.12"),
            (torch.tensor([[1, -1]]), None, r"row -1, outside 0\.\.12"),
            (torch.tensor([[1, 2]]), torch.ones(1, 3), r"attention_mask has shape \(1, 3\)"),
            (torch.tensor([[1, 2]]).bool(), None, "must be integers of shape"),
            (
                torch.tensor([[1, 2]]),
                torch.tensor([[0.0, -torch.inf]]),
                "attention_mask holds -inf; allowed are 1 = real item",
            ),
        ],
    )
    def test_errors(self, item_ids, mask, message):
        with pytest.raises(ValueError, match=message):
            toy_model()(item_ids, mask)

    def test_an_empty_sequence(self):
        with pytest.raises(ValueError, match="sequence 1 of the batch is empty"):
            toy_model().encode_sequences(torch.tensor([[1, 2], [0, 0]]))

    def test_a_batch_that_is_all_padding(self):
        loss = toy_model()(torch.zeros(2, 3, dtype=torch.long)).loss
        loss.backward()
        assert loss == 0


class TestPopularity:
    def test_logits_are_corrected_by_its_log(self):
        model = toy_model(dropout=0.0)
        item_ids = torch.tensor([[1, 2, 3], [4, 5, 6]])
        plain = model(item_ids)
        counts = torch.arange(13.0)
        corrected = model.set_item_popularity(counts)(item_ids)
        log_q = (counts / 78).log()[plain.candidate_ids]
        torch.testing.assert_close(corrected.logits["id"], plain.logits["id"] - log_q)
        off = toy_model(dropout=0.0, logq_correction=False).set_item_popularity(counts)
        off.load_state_dict(model.state_dict())
        torch.testing.assert_close(off(item_ids).logits["id"], plain.logits["id"])

    def test_items_never_seen_count_as_the_rarest(self):
        counts = torch.tensor([0, 0, 5, 2] + [1] * 9)
        log_q = toy_model().set_item_popularity(counts).item_log_probability
        assert log_q[1] == log_q[4]
        assert log_q.isfinite().all()

    @pytest.mark.parametrize(
        ("counts", "message"),
        [
            (torch.ones(12), r"shape \(12,\), but 12 items need \(13,\)"),
            (torch.zeros(13), "not zero everywhere"),
            (torch.full((13,), -1.0), "not negative"),
            (torch.full((13,), float("nan")), "must be finite"),
        ],
    )
    def test_errors(self, counts, message):
        with pytest.raises(ValueError, match=message):
            toy_model().set_item_popularity(counts)


@functools.cache
def ties_model() -> ODMTWrapper:
    """A model with integer scores that often tie."""
    torch.manual_seed(0)
    model = toy_model(fusion="id").eval()
    with torch.no_grad():
        model.item_encoder.id_embedding.weight[1:] = torch.randint(-1, 2, (12, HIDDEN_SIZE)).float()
        model.backbones.by_source["id"].mix.weight.zero_()
        model.backbones.by_source["id"].mix.bias.zero_()
    return model


class TestRecommend:
    def test_in_the_users_own_ids_best_first(self):
        model = toy_model().eval()
        result = model.recommend([["item-3", "item-1"], ["item-4"]], k=5)
        catalogue = model.encode_catalogue()
        sequences = model.encode_sequences(torch.tensor([[4, 2], [0, 5]]))
        scores = sum(sequences[s] @ catalogue[s].T for s in model.sources) / 3
        scores[:, 0] = -torch.inf
        scores[0, [4, 2]] = scores[1, 5] = -torch.inf
        for user in range(2):
            best = scores[user].topk(5)
            assert result.item_ids[user] == [f"item-{i - 1}" for i in best.indices.tolist()]
            torch.testing.assert_close(torch.tensor(result.scores[user]), best.values)

    def test_seen_items_can_stay(self):
        model = toy_model()
        everything = model.recommend([["item-0"]], k=12, exclude_seen=False).item_ids[0]
        assert sorted(everything) == sorted(model.vocabulary)
        assert len(model.recommend([["item-0"]], k=12).item_ids[0]) == 11

    def test_everything_seen_is_excluded_not_only_what_is_read(self):
        model = toy_model(max_seq_length=2)
        history = [f"item-{i}" for i in range(10)]
        assert set(model.recommend([history], k=5).item_ids[0]) == {"item-10", "item-11"}

    def test_batches_do_not_change_the_result(self):
        model = toy_model()
        histories = [[f"item-{i}"] * (1 + i % 3) for i in range(7)]
        whole, small = (model.recommend(histories, k=3, batch_size=b) for b in (256, 2))
        assert small.item_ids == whole.item_ids
        torch.testing.assert_close(torch.tensor(small.scores), torch.tensor(whole.scores))

    def test_the_training_mode_stays(self):
        model = toy_model().train()
        model.recommend([["item-0"]], k=1)
        assert model.training
        assert model.item_encoder.training

    def test_more_than_there_are(self):
        model = toy_model()
        assert model.recommend([["item-0"]], k=500) == model.recommend([["item-0"]], k=12)

    @pytest.mark.parametrize(
        "form", [list, tuple, np.array, torch.tensor, pd.Series, lambda x: [np.int64(i) for i in x]]
    )
    def test_histories_and_choices_of_any_form(self, form):
        model = ODMTWrapper(MyModel(), toy_features(), check=False)  # the ids are 1..12
        expected = model.recommend([[3, 1], [4, 2]], k=2, items=[5, 6, 7], exclude=[6])
        found = model.recommend(
            [form([3, 1]), form([4, 2])],
            k=np.int64(2),
            items=form([5, 6, 7]) if form is not tuple else [5, 6, 7],
            exclude=form([6]) if form is not tuple else [6],
            batch_size=np.int32(1),
        )
        assert found.item_ids == expected.item_ids
        both = np.array([[3, 1], [4, 2]])
        for histories in (both, torch.from_numpy(both), pd.Series([[3, 1], [4, 2]], ["a", "b"])):
            again = model.recommend(histories, k=2, items=[5, 6, 7], exclude=[6])
            assert again.item_ids == expected.item_ids

    @given(st.data())
    @settings(max_examples=20)
    def test_choices_equal_the_whole_list_filtered(self, data):
        model = ties_model()
        ids = st.sampled_from(list(model.vocabulary))
        histories = data.draw(st.lists(st.lists(ids, min_size=1, max_size=4), max_size=4))
        seen = data.draw(st.booleans())

        def choice(least):
            some = st.lists(ids, min_size=least, max_size=8)
            each = st.lists(some, min_size=len(histories), max_size=len(histories))
            return data.draw(st.none() | some | each)

        items, exclude = choice(1), choice(0)
        arguments = {"exclude_seen": seen, "batch_size": data.draw(st.integers(1, 3))}
        k = data.draw(st.integers(1, 14))
        whole = model.recommend(histories, k=12, **arguments)
        found = model.recommend(histories, k=k, items=items, exclude=exclude, **arguments)

        def of(chosen, user):
            each = chosen is not None and bool(chosen) and isinstance(chosen[0], list)
            return chosen[user] if each else chosen

        for user in range(len(histories)):
            among, out = of(items, user), of(exclude, user) or []
            kept = [
                (item, score)
                for item, score in zip(whole.item_ids[user], whole.scores[user], strict=True)
                if (among is None or item in among) and item not in out
            ][:k]
            assert found.item_ids[user] == [item for item, _ in kept]
            assert found.scores[user] == pytest.approx([score for _, score in kept])

    def test_unknown_ids_are_named_or_skipped(self):
        model = toy_model()
        with pytest.raises(ValueError, match="history 1: item id 'nope' is not among the 12 items"):
            model.recommend([["item-0"], ["item-1", "nope"]])
        known = model.recommend([["item-1"]], k=3)
        assert model.recommend([["nope", "item-1"]], k=3, unknown="skip") == known
        with pytest.raises(ValueError, match="history 0 is empty after leaving out unknown items"):
            model.recommend([["nope"]], unknown="skip")

    @pytest.mark.parametrize(
        ("histories", "arguments", "message"),
        [
            ([["item-0"], []], {}, "history 1 is empty: a recommendation needs"),
            (["item-0"], {}, "histories is a list of lists of item ids"),
            ([["item-0"]], {"k": 0}, "k=0 must be at least 1"),
            ([{"item-0", "item-1"}], {}, "histories is a list of lists of item ids, oldest first"),
            (torch.tensor([1, 2]), {}, "for one user"),
            ([["item-0"]], {"items": []}, "items is empty: there is nothing to recommend"),
            ([["item-0"]], {"items": "item-1"}, "items='item-1' must be a list of item ids"),
            ([["item-0"]], {"items": ["nope"]}, "items: item id 'nope' is not among"),
            (
                [["item-0"]],
                {"items": ["nope"], "unknown": "skip"},
                "items is empty after leaving out unknown items",
            ),
            ([["item-0"]], {"items": [["item-1"], []]}, "items has 2 lists for 1 histories"),
            ([["item-0"]] * 2, {"items": [["item-1"], []]}, "items of history 1 is empty"),
            ([["item-0"]] * 2, {"exclude": [["item-1"], "item-2"]}, "exclude mixes item ids"),
            ([["item-0"]] * 2, {"exclude": [[], ["nope"]]}, "exclude of history 1: item id 'nope'"),
            ([["item-0"]], {"batch_size": 0}, "batch_size=0 must be at least 1"),
        ],
    )
    def test_errors(self, histories, arguments, message):
        with pytest.raises(ValueError, match=message):
            toy_model().recommend(histories, **arguments)


class TestCatalogue:
    def test_it_is_kept_until_a_weight_changes(self):
        model = toy_model().eval()
        first = model.encode_catalogue()["id"]
        assert model.encode_catalogue()["id"].data_ptr() == first.data_ptr()
        with torch.no_grad():
            model.item_encoder.id_embedding.weight[3] += 1
        assert not torch.equal(model.encode_catalogue()["id"], first)

    @pytest.mark.parametrize("fused", [False, True])
    @pytest.mark.parametrize("fusion", ["odmt", "id"])
    def test_a_training_step_renews_it(self, fused, fusion):
        model = toy_model(fusion=fusion)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=fused)
        model(torch.tensor([[1, 2, 3], [4, 5, 6]])).loss.backward()
        first = model.encode_catalogue()["id"]
        optimizer.step()
        second = model.encode_catalogue()["id"]
        assert not torch.equal(second, first)
        for _ in range(2):
            model(torch.tensor([[1, 2, 3], [4, 5, 6]])).loss.backward()
            optimizer.step()
        assert not torch.equal(model.encode_catalogue()["id"], second)

    def test_other_features_renew_it(self):
        model = toy_model().eval()
        before = model.recommend([["item-1"]], k=12)
        ids = [f"item-{i}" for i in range(12)]
        other = toy_features(item_ids=ids, seed=7)
        model.item_features = other
        fresh = toy_model().eval()
        fresh.load_state_dict(model.state_dict())
        fresh.item_features = other
        found = model.recommend([["item-1"]], k=12)
        assert found != before
        assert found == fresh.recommend([["item-1"]], k=12)
        model.item_features = other.select(ids[::-1])  # joined by id
        assert model.recommend([["item-1"]], k=12) == found

    @pytest.mark.parametrize("joined", [False, True])
    def test_writing_into_a_feature_tensor_renews_it(self, joined):
        text = torch.randn(4, 2, 8)
        features = ItemFeatures.from_tensors(item_ids=list("abc"), text=text)
        if joined:
            more = ItemFeatures.from_tensors(item_ids=["d"], text=torch.randn(2, 2, 8))
            features = JoinedFeatures(features, more)
        model = ODMTWrapper(MyModel(), features, check=False).eval()
        first = model.encode_catalogue()["text"]
        text[2] += 1
        second = model.encode_catalogue()["text"]
        assert torch.equal(first[1], second[1])
        assert not torch.equal(first[2], second[2])
        assert model.encode_catalogue()["text"].data_ptr() == second.data_ptr()

    def test_features_made_in_inference_mode(self):
        with torch.inference_mode():  # such tensors count no writes
            text = torch.randn(4, 2, 8)
        model = ODMTWrapper(MyModel(), ItemFeatures.from_tensors(text=text), check=False)
        assert model.encode_catalogue()["text"].shape[0] == 4

    def test_features_that_do_not_fit(self):
        model = toy_model()
        with pytest.raises(ValueError, match="the model reads features"):
            model.item_features = ItemFeatures.from_tensors(
                item_ids=list(model.vocabulary), text=torch.randn(13, 2, 9)
            )
        with pytest.raises(ValueError, match="item id 'item-0' is not among"):
            model.item_features = toy_features()
        with pytest.raises(ValueError, match="this model has no items yet: call model.set_items"):
            ODMTWrapper(MyModel(), check=False).item_features = toy_features()

    def test_without_features_the_kept_embeddings_stay(self):
        model = toy_model().eval()
        before = model.recommend([["item-1"]], k=3)
        model.item_features = None
        assert model.recommend([["item-1"]], k=3) == before

    def test_row_0_is_zero(self):
        assert not toy_model().encode_catalogue()["image"][0].any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"distillation_temperature": 0}, "distillation_temperature=0 must be greater than 0"),
        ({"distillation_weight": -1}, "distillation_weight=-1 must be at least 0"),
        ({"dropout": 1.0}, "dropout=1.0 must be at least 0 and below 1"),
        ({"num_layers": 0}, "num_layers=0 must be at least 1"),
        ({"hidden_size": 8, "num_heads": 3}, "hidden_size=8 is not divisible by num_heads=3"),
        ({"id_visibility": "v1"}, "id_visibility='v1' must be one of"),
        ({"max_seq_length": 0}, "max_seq_length=0 must be at least 1"),
        ({"layer_norm_eps": 0.0}, "layer_norm_eps=0.0 must be greater than 0"),
    ],
)
def test_config_errors(settings, message):
    with pytest.raises(ValueError, match=message):
        ODMTConfig(**settings)


def test_config_round_trip_and_unknown_settings():
    config = ODMTConfig(num_heads=4, teaching_graph="paper")
    assert ODMTConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ValueError, match=r"unknown settings \['heads'\]; known are"):
        ODMTConfig.from_dict({"heads": 4})


def test_any_number_of_modalities():
    for names in ((), ("text",), ("text", "image", "audio", "video")):
        if names:
            tensors = {name: torch.randn(6, 2, 3) for name in names}
            model = ODMTWrapper(MyModel(), ItemFeatures.from_tensors(**tensors))
        else:
            model = ODMTWrapper(MyModel(), vocabulary=range(1, 6))
        model(torch.tensor([[1, 2, 3], [0, 4, 5]])).loss.backward()
        assert model.sources == ("id", *names)


def test_a_mask_that_is_an_epoch():
    model = toy_model()
    with pytest.raises(TypeError, match=r"attention_mask must be a tensor .*got int: an epoch is"):
        model(torch.tensor([[1, 2, 3]]), 1)
