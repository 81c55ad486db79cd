"""Items with missing content, items unseen in training, and items added later."""

import pytest
import torch
from toys import MyModel, toy_features, toy_model

from odmt_sdk import ItemFeatures, ODMTConfig, ODMTWrapper, SASRec
from odmt_sdk.features.joined import JoinedFeatures
from odmt_sdk.items.embedder import register_fusion
from odmt_sdk.items.fusions.id_only import IDEncoder

BATCH = torch.tensor([[0, 3, 1, 2], [4, 5, 6, 7], [8, 9, 10, 11]])
HISTORIES = [["item-3", "item-1"], ["item-4"]]


def gappy_features(spoil: float | None = None, item_ids=None, grad=False) -> ItemFeatures:
    """Every third item lacks its text, every fourth its image; padding tokens are `spoil`."""
    generator = torch.Generator().manual_seed(0)
    tensors = {
        "text": torch.randn(13, 4, 6, generator=generator),
        "image": torch.randn(13, 3, 5, generator=generator),
    }
    lengths = {
        "text": torch.tensor([0] + [0 if i % 3 == 0 else 1 + i % 4 for i in range(12)]),
        "image": torch.tensor([0] + [0 if i % 4 == 0 else 3 for i in range(12)]),
    }
    for name, tokens in tensors.items():
        absent = torch.arange(tokens.shape[1]) >= lengths[name][:, None]
        if spoil is not None:
            tokens[absent] = spoil
        tokens.requires_grad_(grad)
    return ItemFeatures.from_tensors(item_ids=item_ids, lengths=lengths, **tensors)


class TestAbsentTokens:
    @pytest.mark.parametrize("visibility", ["one_way", "mutual"])
    @pytest.mark.parametrize("spoil", [float("nan"), float("inf"), 1e30])
    def test_their_values_change_neither_loss_nor_gradients(self, visibility, spoil):
        found = []
        for value in (None, spoil):
            torch.manual_seed(0)
            config = ODMTConfig(id_visibility=visibility, modality_dropout=0.3, id_dropout=0.3)
            model = ODMTWrapper(SASRec(8), gappy_features(value), config)
            loss = model(BATCH).loss
            loss.backward()
            found.append((loss, [p.grad for p in model.parameters()], model))
        (loss, gradients, model), (spoilt, spoilt_gradients, spoilt_model) = found
        assert torch.equal(loss, spoilt)
        for one, other in zip(gradients, spoilt_gradients, strict=True):
            assert torch.equal(one, other)
        expected = model.recommend([[3, 1], [4]], k=5)
        assert spoilt_model.recommend([[3, 1], [4]], k=5) == expected

    def test_they_get_no_gradient(self):
        features = gappy_features(grad=True)
        model = ODMTWrapper(SASRec(8), features, ODMTConfig(dropout=0.0))
        model(BATCH).loss.backward()
        for name in ("text", "image"):
            tokens, lengths = features[name]
            exists = torch.arange(tokens.shape[1]) < lengths[:, None]
            read = tokens.grad.any(-1)
            assert not read[~exists].any()
            assert read[1:12][exists[1:12]].all()  # row 12 is not in the batch


class TestHiding:
    def test_it_is_a_setting_of_the_config(self):
        model = toy_model(modality_dropout=0.25, id_dropout=0.5)
        assert model.item_encoder.modality_dropout == 0.25
        assert model.item_encoder.id_dropout == 0.5
        losses = {model(BATCH).loss.item() for _ in range(3)}
        assert len(losses) == 3

    def test_without_it_training_is_as_before(self):
        torch.manual_seed(0)
        model = toy_model(dropout=0.0)
        state = torch.get_rng_state()
        loss = model(BATCH).loss
        assert torch.equal(torch.get_rng_state(), state)
        assert torch.equal(model(BATCH).loss, loss)

    def test_recommending_hides_nothing(self):
        model = toy_model(modality_dropout=0.9, id_dropout=0.9)
        assert model.recommend(HISTORIES, k=5) == model.recommend(HISTORIES, k=5)
        catalogue = model.encode_catalogue()
        plain = toy_model()
        plain.load_state_dict(model.state_dict())
        for source, embeddings in plain.encode_catalogue().items():
            assert torch.equal(embeddings, catalogue[source])

    @pytest.mark.parametrize("name", ["modality_dropout", "id_dropout"])
    @pytest.mark.parametrize("value", [-0.1, 1.0])
    def test_probabilities(self, name, value):
        with pytest.raises(ValueError, match=f"{name}={value} must be at least 0 and below 1"):
            ODMTConfig(**{name: value})


class TestNeverSeen:
    def test_items_without_a_count_use_the_unknown_id(self):
        model = toy_model().eval()
        before = model.encode_catalogue()
        counts = torch.ones(13)
        counts[[3, 7]] = 0
        model.set_item_popularity(counts)
        after = model.encode_catalogue()
        cold = counts[1:] == 0
        assert torch.equal(after["id"][1:][~cold], before["id"][1:][~cold])
        assert not torch.isclose(after["id"][1:][cold], before["id"][1:][cold]).all(1).any()
        assert torch.equal(after["text"], before["text"])  # content tokens do not attend to the ID
        assert model.item_encoder.unseen.nonzero().flatten().tolist() == [3, 7]
        model.set_item_popularity(torch.ones(13))
        assert torch.equal(model.encode_catalogue()["id"], before["id"])

    def test_it_is_saved(self, tmp_path):
        model = toy_model().set_item_popularity(torch.arange(13) % 5)
        model.save_pretrained(tmp_path / "a")
        loaded = ODMTWrapper.from_pretrained(tmp_path / "a", MyModel())
        assert loaded.item_encoder.unseen.nonzero().flatten().tolist() == [5, 10]
        assert loaded.set_item_popularity(torch.arange(13) % 5).recommend(HISTORIES, k=3)

    def test_a_fusion_that_knows_no_unseen_items(self):
        model = ODMTWrapper(MyModel(), config=ODMTConfig(fusion="id"), vocabulary=["a", "b", "c"])
        model.set_item_popularity(torch.tensor([0, 1, 0, 2]))
        assert model.recommend([["a"]], k=1)


def new_features(count=3, tokens=5):
    """Create items `new-0`, ...; the last one has no image."""
    lengths = torch.full((count + 1,), 3)
    lengths[[0, -1]] = 0
    return ItemFeatures.from_tensors(
        item_ids=[f"new-{i}" for i in range(count)],
        text=torch.randn(count + 1, tokens, 6),
        image=torch.randn(count + 1, 3, 5),
        lengths={"image": lengths},
    )


class TestAddItems:
    def test_they_are_recommended_at_once(self):
        model = toy_model(id_dropout=0.2).eval()
        old = model.encode_catalogue()
        assert model.add_items(new_features()) is model
        assert model.num_items == 15
        assert model.vocabulary.item_ids[12:] == ("new-0", "new-1", "new-2")
        for source, embeddings in model.encode_catalogue().items():
            assert embeddings.shape == (16, 8)
            assert torch.equal(embeddings[:13], old[source])
        everything = model.recommend([["item-3", "new-1"]], k=13).item_ids[0]
        assert {"new-0", "new-2"} <= set(everything)
        assert "new-1" not in everything

    def test_the_same_as_if_they_had_been_there_and_never_seen(self):
        old, new = toy_features(item_ids=[f"item-{i}" for i in range(12)]), new_features()
        model = ODMTWrapper(MyModel(), old)
        counts = torch.cat([torch.arange(13), torch.zeros(3, dtype=torch.long)])
        model.set_item_popularity(counts[:13])
        whole = ODMTWrapper(MyModel(), JoinedFeatures(old, new)).set_item_popularity(counts)
        model.add_items(new)
        weights = model.state_dict()
        whole.load_state_dict(weights)
        torch.testing.assert_close(whole.item_log_probability, model.item_log_probability)
        assert torch.equal(whole.item_encoder.unseen, model.item_encoder.unseen)
        for source, embeddings in whole.eval().encode_catalogue().items():
            torch.testing.assert_close(embeddings, model.encode_catalogue()[source])
        shift = whole.set_item_popularity(counts).item_log_probability - model.item_log_probability
        torch.testing.assert_close(shift[1:], shift[1].expand(15))  # no difference for a softmax

    def test_many_times_and_train_on(self):
        model = toy_model(id_dropout=0.2)
        for start in range(3):
            features = ItemFeatures.from_tensors(
                item_ids=[f"late-{start}"], text=torch.randn(2, 2, 6), image=torch.randn(2, 1, 5)
            )
            model.add_items(features)
        assert model.num_items == 15
        model.set_item_popularity(torch.arange(16))
        assert not model.item_encoder.unseen.any()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        before = model.item_encoder.id_embedding.weight.detach().clone()
        model(torch.tensor([[1, 13, 14, 15], [4, 5, 6, 7]])).loss.backward()
        optimizer.step()
        assert not torch.equal(model.item_encoder.id_embedding.weight[13:], before[13:])
        assert model.recommend([["late-2"]], k=3)

    def test_a_catalogue_that_was_not_encoded_yet(self):
        torch.manual_seed(0)
        one = toy_model()
        torch.manual_seed(0)
        other = toy_model()
        one.encode_catalogue()
        new = new_features()
        one.add_items(new)
        other.add_items(new)
        for source, embeddings in other.encode_catalogue().items():
            torch.testing.assert_close(embeddings, one.encode_catalogue()[source])

    @pytest.mark.parametrize("with_features", [False, True])
    def test_on_a_loaded_adapter_saved_again(self, tmp_path, with_features):
        model = toy_model(id_dropout=0.2).set_item_popularity(torch.arange(13.0))
        model.save_pretrained(tmp_path / "a")
        old, new = toy_features(item_ids=[f"item-{i}" for i in range(12)]), new_features()
        given = old if with_features else None
        loaded = ODMTWrapper.from_pretrained(tmp_path / "a", MyModel(), given).add_items(new)
        assert not loaded.training
        expected = model.eval().add_items(new).recommend([*HISTORIES, ["new-2"]], k=12)
        found = loaded.recommend([*HISTORIES, ["new-2"]], k=12)
        assert found.item_ids == expected.item_ids
        torch.testing.assert_close(torch.tensor(found.scores), torch.tensor(expected.scores))
        loaded.save_pretrained(tmp_path / "b")
        for features in (None, JoinedFeatures(old, new), JoinedFeatures(new, old)):
            again = ODMTWrapper.from_pretrained(tmp_path / "b", MyModel(), features)
            assert again.recommend([*HISTORIES, ["new-2"]], k=12).item_ids == expected.item_ids
            assert again.item_encoder.unseen.tolist() == [False] * 13 + [True] * 3
        assert again(BATCH).loss.isfinite()

    def test_their_type_is_that_of_the_model(self):
        model = toy_model().to(torch.bfloat16)
        model.add_items(new_features())
        assert model.item_encoder.id_embedding.weight.dtype == torch.bfloat16
        assert model.encode_catalogue()["id"].dtype == torch.bfloat16

    def test_frozen_ids_stay_frozen(self):
        model = toy_model()
        model.item_encoder.id_embedding.weight.requires_grad_(False)
        model.add_items(new_features())
        assert not model.item_encoder.id_embedding.weight.requires_grad

    def test_ids_that_are_known(self):
        features = new_features(3).select(["new-2", "new-0"])
        model = toy_model().add_items(features)
        before = model.encode_catalogue()["id"]
        message = "2 of the 3 items are already in the catalogue: 'new-0', 'new-2'; leave them out"
        with pytest.raises(ValueError, match=message):
            model.add_items(new_features(3))
        assert model.num_items == 14
        assert model.encode_catalogue()["id"].data_ptr() == before.data_ptr()

    def test_other_features(self):
        features = ItemFeatures.from_tensors(item_ids=["new"], text=torch.randn(2, 4, 6))
        message = r"reads features {'text': 6, 'image': 5} .*, but the new items have {'text': 6}"
        with pytest.raises(ValueError, match=message):
            toy_model().add_items(features)

    def test_models_that_cannot_grow(self):
        ids = ODMTWrapper(MyModel(), config=ODMTConfig(fusion="id"), vocabulary=["a", "b", "c"])
        with pytest.raises(ValueError, match="represents items only by their IDs"):
            ids.add_items(new_features())
        with pytest.raises(ValueError, match="this model has no items yet"):
            ODMTWrapper(MyModel()).add_items(new_features())

        class Fixed(IDEncoder):
            modalities = ("text", "image")

        @register_fusion("fixed")
        def build(config, num_items, hidden_size, modality_widths):
            return Fixed(num_items=num_items, hidden_size=hidden_size)

        with pytest.raises(ValueError, match="Fixed cannot represent items without training"):
            toy_model(fusion="fixed").add_items(new_features())

    def test_weights_changed_and_features_absent(self, tmp_path):
        toy_model().save_pretrained(tmp_path / "a")
        loaded = ODMTWrapper.from_pretrained(tmp_path / "a", MyModel())
        with torch.no_grad():
            loaded.item_encoder.id_embedding.weight += 1
        with pytest.raises(ValueError, match=r"features of \['text', 'image'\] are not loaded"):
            loaded.add_items(new_features())
        assert loaded.num_items == 12
