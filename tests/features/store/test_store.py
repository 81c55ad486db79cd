"""Features on disk: written, interrupted, completed, extended, rejected, read."""

import itertools
import json
import os
import pickle
import shutil
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rounding import one_step
from safetensors import safe_open
from safetensors.torch import save_file
from stored_catalogue import COUNT, content, make_items, store
from tiny_encoders import bert
from toys import MyModel

from odmt_sdk import ItemFeatures, ODMTWrapper
from odmt_sdk.features.joined import JoinedFeatures
from odmt_sdk.features.store import resumable_extraction
from odmt_sdk.features.store.manifest import choose_shard_items
from odmt_sdk.files import atomic_files


def quietly(function, *arguments, **settings):
    """Call a function and expect the warning about the broken image."""
    with pytest.warns(UserWarning, match="could not be read"):
        return function(*arguments, **settings)


def same(one: ItemFeatures, other: ItemFeatures, **tolerance) -> None:
    rows = torch.randperm(one.num_items + 1)
    ours, theirs = one.gather(rows), other.gather(rows)
    assert list(ours) == list(theirs)
    for name in ours:
        assert torch.equal(ours[name].lengths, theirs[name].lengths)
        torch.testing.assert_close(ours[name].tokens, theirs[name].tokens, **tolerance)


class TestReading:
    def test_it_holds_what_memory_holds(self, encoders, reference):
        in_memory = quietly(
            ItemFeatures.from_items, make_items(), progress=False, text_batch_size=3, **encoders
        )
        stored = ItemFeatures.open(reference)
        assert stored.vocabulary == in_memory.vocabulary
        assert stored.widths == in_memory.widths == {"text": 16, "image": 16}
        assert repr(stored) == repr(in_memory)
        same(stored, in_memory, **one_step(torch.float16))  # texts are batched differently
        for name in stored.modalities:
            assert torch.equal(stored[name].lengths, in_memory[name].lengths)
            torch.testing.assert_close(
                stored[name].tokens, in_memory[name].tokens, **one_step(torch.float16)
            )

    def test_rows_in_any_number_and_order(self, reference):
        stored = ItemFeatures.open(reference)
        whole = {name: stored[name] for name in stored.modalities}
        for rows in ([], [0], [5, 5, 0, 23], [7], [20, 1]):
            for name, (tokens, lengths) in stored.gather(torch.tensor(rows).long()).items():
                assert lengths.tolist() == whole[name].lengths[rows].tolist()
                for i, row in enumerate(rows):
                    own = slice(0, int(lengths[i]))
                    assert torch.equal(tokens[i, own], whole[name].tokens[row, own])
                    assert not tokens[i, lengths[i] :].any()

    def test_select_standardize_and_convert(self, reference):
        stored = ItemFeatures.open(reference)
        ids = [8, "item-1", 22, 6]
        in_memory = ItemFeatures(
            stored.vocabulary, {name: stored[name] for name in stored.modalities}
        )
        same(stored.select(ids), in_memory.select(ids), rtol=0, atol=0)
        same(stored.select(ids).select([22, 8]), in_memory.select([22, 8]), rtol=0, atol=0)
        double = in_memory.to(dtype=torch.float64)
        for ours, theirs in (
            (stored.standardize(), double.standardize()),
            (stored.select(ids).standardize(), double.select(ids).standardize()),
            (stored.standardize().select(ids).standardize(), double.select(ids).standardize()),
        ):
            same(ours, theirs, rtol=1e-3, atol=1e-3, check_dtype=False)
        assert stored.standardize().provenance["text"]["standardized"]
        assert "standardized" not in stored.provenance["text"]
        half = stored.standardize().to(dtype=torch.bfloat16)
        assert half.gather(torch.tensor([1]))["text"].tokens.dtype == torch.bfloat16
        assert stored.to("cpu").gather(torch.tensor([1]))["text"].tokens.dtype == torch.float16
        more = stored.add_modality("audio", torch.randn(COUNT + 1, 2, 3))
        assert more.widths == {"text": 16, "image": 16, "audio": 3}

    @pytest.mark.parametrize("standardize", [False, True])
    def test_a_model_trains_from_it_as_from_memory(self, reference, standardize):
        stored = ItemFeatures.open(reference)
        in_memory = ItemFeatures(
            stored.vocabulary,
            {
                name: stored[name]._replace(tokens=stored[name].tokens.float())
                for name in stored.modalities
            },
        )
        losses = []
        for features in (stored, in_memory):
            torch.manual_seed(0)
            features = features.standardize() if standardize else features
            model = ODMTWrapper(MyModel(), features)
            model(torch.tensor([[0, 3, 1, 2], [4, 23, 6, 7]])).loss.backward()
            losses.append([p.grad for p in model.parameters() if p.grad is not None])
        for ours, theirs in zip(*losses, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)

    def test_few_files_stay_open(self, reference, monkeypatch):
        monkeypatch.setattr("odmt_sdk.features.store.stored_tokens._MOST_OPEN", 2)
        stored = ItemFeatures.open(reference)
        before = stored.gather(torch.arange(24))
        assert len(stored._modalities["text"].files._open) == 2
        after = pickle.loads(pickle.dumps(stored)).gather(torch.arange(24))
        assert torch.equal(before["text"].tokens, after["text"].tokens)

    def test_a_file_cut_while_it_is_open_is_an_error(self, reference, tmp_path):
        shutil.copytree(reference, tmp_path / "store")
        stored = ItemFeatures.open(tmp_path / "store")
        stored.gather(torch.arange(24))
        path = tmp_path / "store" / "text" / "0000-00001.safetensors"
        os.truncate(path, path.stat().st_size // 2)
        with pytest.raises(ValueError, match=r"0000-00001.safetensors cannot be read .it ends ear"):
            stored.gather(torch.arange(24))

    def test_a_relative_path_stays_right(self, reference, tmp_path, monkeypatch):
        shutil.copytree(reference, tmp_path / "store")
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path)
        stored = ItemFeatures.open("store")
        monkeypatch.chdir(tmp_path / "elsewhere")
        same(stored, ItemFeatures.open(reference), rtol=0, atol=0)

    def test_home_is_expanded(self, reference, encoders, tmp_path, monkeypatch):
        monkeypatch.setenv("HOME", str(tmp_path))
        quietly(store, make_items(), "~/store", **encoders)
        assert (tmp_path / "store" / "features.json").is_file()
        same(ItemFeatures.open("~/store"), ItemFeatures.open(reference), rtol=0, atol=0)

    def test_a_folder_that_was_moved_is_not_called_damaged(self, reference, tmp_path):
        shutil.copytree(reference, tmp_path / "store")
        stored = ItemFeatures.open(tmp_path / "store")
        (tmp_path / "store").rename(tmp_path / "moved")
        with pytest.raises(FileNotFoundError, match="no longer exists: it was moved") as raised:
            stored.gather(torch.arange(24))
        assert "elete" not in str(raised.value).replace("deleted", "")

    def test_what_it_says_of_itself(self, reference, encoders):
        stored = ItemFeatures.open(reference)
        text, image = stored.provenance["text"], stored.provenance["image"]
        assert (text["encoder"], text["pooling"], text["width"]) == ("BertModel", "first", 16)
        assert text["tokens"] == stored["text"].tokens.shape[1]
        assert image["preprocessing"]["size"] == {"height": 16, "width": 16}
        assert stored.report.present == {"text": 18, "image": 16}
        assert list(stored.report.problems["image"]) == [6]
        assert "6: UnidentifiedImageError" in str(stored.report)
        manifest = json.loads((reference / "features.json").read_text())
        assert manifest["num_items"] == COUNT
        assert manifest["modalities"]["image"]["items"] == 16
        joined = JoinedFeatures(stored.select([8]), stored.select([22]))
        assert joined.provenance == stored.provenance


class TestInterruption:
    def test_stopped_at_every_write(self, encoders, reference, tmp_path, monkeypatch):
        """Stop each run at a later write than the previous one, before and after the write."""
        replace, folder = os.replace, tmp_path / "store"

        class Stop(BaseException):
            pass

        for after in (False, True):
            shutil.rmtree(folder, ignore_errors=True)
            for stop_at in itertools.count():
                calls = itertools.count()

                def replace_or_stop(source, target, calls=calls, stop_at=stop_at, after=after):
                    number = next(calls)
                    if number == stop_at and after:
                        replace(source, target)
                    if number == stop_at:
                        raise Stop
                    replace(source, target)

                monkeypatch.setattr(atomic_files.os, "replace", replace_or_stop)
                try:
                    quietly(store, make_items(), folder, **encoders)
                except Stop:
                    self.check_that_all_or_nothing_is_read(folder, reference)
                    continue
                break
            assert content(folder) == content(reference)

    def test_killed_while_safetensors_writes(self, encoders, reference, tmp_path):
        """safetensors writes to a temporary file next to the target and renames it."""
        folder = tmp_path / "store"
        folder.mkdir()
        (folder / ".tmpAb1Cd2").write_bytes(b"item ids, a part of them")
        quietly(store, make_items(), folder, **encoders)
        assert content(folder) == content(reference)
        (folder / "text" / "0000-00002.safetensors").rename(folder / "text" / ".tmpXy9Zw8")
        quietly(store, make_items(), folder, **encoders)
        assert content(folder) == content(reference)

    def check_that_all_or_nothing_is_read(self, folder, reference):
        if not (folder / "features.json").exists():
            with pytest.raises(FileNotFoundError, match="there are no item features in"):
                ItemFeatures.open(folder)
        elif json.loads((folder / "features.json").read_text())["num_items"] == 0:
            with pytest.raises(ValueError, match="is not complete: call ItemFeatures.from_items"):
                ItemFeatures.open(folder)
        else:
            same(ItemFeatures.open(folder), ItemFeatures.open(reference), rtol=0, atol=0)

    def test_nothing_is_encoded_twice(self, encoders, reference, tmp_path):
        folder = tmp_path / "store"
        shutil.copytree(reference, folder)
        shown = []
        model, _ = encoders["text_encoder"]
        hook = model.register_forward_hook(lambda module, args, output: shown.append(1))
        try:
            quietly(store, make_items(), folder, **encoders)
            assert shown == []
            (folder / "text" / "0000-00002.safetensors").unlink()
            with pytest.raises(ValueError, match="0000-00002.safetensors cannot be read"):
                ItemFeatures.open(folder).gather(torch.arange(24))
            quietly(store, make_items(), folder, **encoders)
            assert len(shown) in (1, 2)
        finally:
            hook.remove()
        assert content(folder) == content(reference)

    def test_its_items_are_needed_to_go_on(self, encoders, tmp_path, monkeypatch):
        def fail(*arguments):
            raise OSError("No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(resumable_extraction, "_finish", fail)
            with pytest.raises(OSError, match="No space left"):
                store(make_items(8), tmp_path / "store", **encoders)
        (tmp_path / "store" / "text" / "0000-00001.safetensors").unlink()
        message = "features of item 4 in .* not completed or have been deleted.*: pass it again"
        with pytest.raises(ValueError, match=message):
            store(make_items(3), tmp_path / "store", **encoders)

    def test_a_full_disk(self, encoders, tmp_path, monkeypatch):
        def full(tensors, path, metadata=None):
            Path(path).write_bytes(b"half")
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(atomic_files, "save_file", full)
            with pytest.raises(OSError, match="cannot write .*No space left.*run the same call"):
                store(make_items(8), tmp_path / "store", **encoders)
        assert list(content(tmp_path / "store")) == []


class TestAppending:
    def test_new_items_are_added_and_the_old_ones_kept(self, encoders, reference, tmp_path):
        folder = tmp_path / "store"
        shutil.copytree(reference, folder)
        before = content(folder)
        new = make_items(5, start=COUNT)
        added = store(new, folder, **encoders)
        assert added.vocabulary.item_ids == tuple(new["item_id"])
        same(
            added,
            ItemFeatures.from_items(new, progress=False, **encoders),
            **one_step(torch.float16),
        )
        features = ItemFeatures.open(folder)
        everything = make_items(COUNT + 5)
        assert features.vocabulary.item_ids == tuple(everything["item_id"])
        same(features.select(new["item_id"]), added, rtol=0, atol=0)
        after = content(folder)
        for name in before.keys() & after.keys() - {"features.json", "report.json"}:
            assert after[name] == before[name]
        assert list(features.report.problems["image"]) == [6]
        # changed and new items in one call, with the old items in another order
        again = quietly(store, {k: v[::-1] for k, v in everything.items()}, folder, **encoders)
        assert again.vocabulary.item_ids == tuple(everything["item_id"][::-1])
        same(again, features.select(everything["item_id"][::-1]), rtol=0, atol=0)
        assert content(folder) == after

    def test_the_old_items_can_be_read_while_new_ones_are_missing(
        self, encoders, reference, tmp_path, monkeypatch
    ):
        folder = tmp_path / "store"
        shutil.copytree(reference, folder)

        def stop(*arguments):
            raise RuntimeError("power cut")

        with monkeypatch.context() as patch:
            patch.setattr(resumable_extraction, "_finish", stop)
            with pytest.raises(RuntimeError, match="power cut"):
                store(make_items(5, start=COUNT), folder, **encoders)
        same(ItemFeatures.open(folder), ItemFeatures.open(reference), rtol=0, atol=0)
        store(make_items(5, start=COUNT), folder, **encoders)
        assert ItemFeatures.open(folder).num_items == COUNT + 5


class TestChangedItems:
    """The raw values differ from those the folder was extracted from."""

    def test_they_are_encoded_again_and_the_others_are_not(self, encoders, reference, tmp_path):
        folder, items = tmp_path / "store", make_items()
        shutil.copytree(reference, folder)
        before = ItemFeatures.open(folder)
        items["text"][3], items["text"][8], items["text"][9] = "long wool", None, "hat"
        items["text"][5] = "red"  # it had no text
        items["image"][6] = items["image"][7]  # it was broken
        seen = []
        hook = encoders["text_encoder"][0].register_forward_hook(
            lambda module, args, output: seen.append(output.last_hidden_state.shape[0])
        )
        try:
            with pytest.warns(UserWarning, match="have changed") as caught:
                features = store(items, folder, **encoders)
        finally:
            hook.remove()
        said = [str(warning.message) for warning in caught]
        assert "4 texts have changed since the folder was made" in said[0]
        assert "for items 'item-3', 'item-5', 8, 'item-9'." in said[0]
        assert "1 pictures have changed" in said[1]
        assert "for items 6." in said[1]
        assert sum(seen) == 3 + 2  # items with a text now, and the check of the first token
        assert not features.report.problems["image"]
        expected = ItemFeatures.from_items(items, progress=False, text_batch_size=3, **encoders)
        same(features, expected, rtol=0, atol=2e-3)
        same(ItemFeatures.open(folder), features, rtol=0, atol=0)
        with pytest.raises(ValueError, match="has been rewritten since it was opened"):
            before.gather(torch.arange(24))
        with warnings.catch_warnings():  # nothing changed
            warnings.simplefilter("error")
            after = content(folder)
            same(store(items, folder, **encoders), features, rtol=0, atol=0)
        assert content(folder) == after
        # and back again, passing only the changed items
        back = {name: [make_items()[name][n] for n in (3, 5, 6, 8, 9)] for name in items}
        with pytest.warns(UserWarning, match="have changed"):
            store(back, folder, **encoders)
        same(ItemFeatures.open(folder), ItemFeatures.open(reference), rtol=0, atol=2e-3)

    def test_interrupted_at_every_write(self, encoders, reference, tmp_path, monkeypatch):
        """The folder has the old features until the run is complete, and then the new ones."""
        replace, folder, items = os.replace, tmp_path / "store", make_items()
        items["text"][3] = "long wool"
        encoder = {"text_encoder": encoders["text_encoder"]}
        only_text = {name: items[name] for name in ("item_id", "text")}
        old = {**only_text, "text": make_items()["text"]}
        store(old, tmp_path / "old", **encoder)
        shutil.copytree(tmp_path / "old", folder)
        new = store(only_text, tmp_path / "new", **encoder)
        for stop in range(20):
            writes = iter(range(100))

            def stopping(source, target, writes=writes, stop=stop):
                if next(writes) == stop:
                    raise RuntimeError("power cut")
                replace(source, target)

            with monkeypatch.context() as patch, warnings.catch_warnings():
                warnings.simplefilter("ignore")
                patch.setattr(os, "replace", stopping)
                try:
                    store(only_text, folder, **encoder)
                    break
                except RuntimeError:
                    same(ItemFeatures.open(folder), ItemFeatures.open(tmp_path / "old"))
                patch.undo()
                store(only_text, folder, **encoder)
            same(ItemFeatures.open(folder), new, rtol=0, atol=2e-3)
            shutil.rmtree(folder)
            shutil.copytree(tmp_path / "old", folder)
        assert stop >= 4  # the plan, the file, the index, the report, the end

    def test_pictures_by_path(self, encoders, tmp_path):
        for n, picture in enumerate(make_items(4)["image"][1:4]):
            picture.save(tmp_path / f"{n}.png")
        paths = [str(tmp_path / f"{n}.png") for n in range(3)]
        items = {"item_id": [1, 2, 3], "image": paths}
        encoder = {"image_encoder": encoders["image_encoder"]}
        before = store(items, tmp_path / "store", **encoder)["image"].tokens
        os.utime(paths[0], ns=(5, 5))  # another modification time, the same image
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            store(items, tmp_path / "store", **encoder)
        shutil.copy(paths[2], paths[1])
        with pytest.warns(UserWarning, match="1 pictures have changed .* for items 2"):
            after = store(items, tmp_path / "store", **encoder)["image"].tokens
        assert torch.equal(after[[1, 2, 3]], before[[1, 3, 3]])

    def test_pictures_that_are_out_of_reach_keep_their_features(
        self, encoders, tmp_path, monkeypatch
    ):
        folder = tmp_path / "pictures"
        folder.mkdir()
        for name, color in (("a", "red"), ("b", "blue")):
            Image.new("RGB", (8, 8), color).save(folder / f"{name}.png")
        items = {"item_id": ["a", "b"], "image": ["pictures/a.png", "pictures/b.png"]}
        settings = {"image_encoder": encoders["image_encoder"], "progress": False}
        monkeypatch.chdir(tmp_path)
        before = ItemFeatures.from_items(items, path=tmp_path / "store", **settings)
        (folder / "a.png").rename(tmp_path / "away.png")
        with pytest.warns(UserWarning, match="1 pictures cannot be read any more, of items 'a'"):
            same(ItemFeatures.from_items(items, path=tmp_path / "store", **settings), before)
        monkeypatch.chdir("/")  # where relative paths lead nowhere
        with pytest.warns(UserWarning, match="2 pictures cannot be read any more, of items 'a', "):
            same(ItemFeatures.from_items(items, path=tmp_path / "store", **settings), before)
        monkeypatch.chdir(tmp_path)
        (folder / "b.png").unlink()
        Image.new("RGB", (8, 8), "green").save(folder / "a.png")
        with pytest.warns(UserWarning, match=r"changed .* for items 'a'\.|cannot .* items 'b':"):
            changed = ItemFeatures.from_items(items, path=tmp_path / "store", **settings)
        assert torch.equal(changed["image"].tokens[2], before["image"].tokens[2])
        assert not torch.equal(changed["image"].tokens[1], before["image"].tokens[1])
        items["image"][1] = None
        with pytest.warns(UserWarning, match="1 pictures have changed .* for items 'b'"):
            removed = ItemFeatures.from_items(items, path=tmp_path / "store", **settings)
        assert removed["image"].lengths.tolist()[2] == 0

    def test_folders_without_marks_are_opened_and_left_as_they_are(
        self, encoders, reference, tmp_path
    ):
        folder = tmp_path / "store"
        shutil.copytree(reference, folder)
        for path in folder.glob("*/0*.safetensors"):
            with safe_open(path, framework="pt") as file:
                tensors = {n: file.get_tensor(n).clone() for n in file.keys() if n != "marks"}  # noqa: SIM118
                notes = file.metadata()
            save_file(tensors, path, metadata=notes)
        before, items = content(folder), make_items()
        items["text"][3] = "long wool"
        quietly(store, items, folder, **encoders)
        assert content(folder) == before


class TestRefusal:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"text_encoder": None}, r"modalities are \['text', 'image'\], now \['image'\]"),
            ({"dtype": torch.bfloat16}, "dtype is float16, now bfloat16"),
            ({"text_pooling": "mean"}, "text pooling is 'first', now 'mean'"),
            ({"max_text_tokens": 9}, "text preprocessing max_tokens is 30, now 9"),
            ({"max_image_tokens": 2}, "image preprocessing max_tokens is None, now 2"),
            ({"precision": "bfloat16"}, "text computed_in is 'float32', now 'bfloat16'"),
        ],
    )
    def test_other_settings(self, encoders, reference, change, message):
        with pytest.raises(ValueError, match=f"were made in another way: .*{message}"):
            store(make_items(), reference, **{**encoders, **change})

    def test_another_encoder(self, encoders, reference):
        torch.manual_seed(1)
        other = {**encoders, "text_encoder": bert()}
        with pytest.raises(
            ValueError, match="text weights is '.*', now '.*another path, or delete"
        ):
            store(make_items(), reference, **other)

    def test_another_picture_size(self, encoders, reference):
        model, processor = encoders["image_encoder"]
        other = type(processor)(size={"height": 16, "width": 16}, image_mean=[0.4, 0.5, 0.5])
        with pytest.raises(ValueError, match="image preprocessing image_mean is"):
            store(make_items(), reference, **{**encoders, "image_encoder": (model, other)})

    def test_folders_that_hold_something_else(self, encoders, tmp_path):
        (tmp_path / "thesis.tex").touch()
        with pytest.raises(ValueError, match="contains something other than item features"):
            store(make_items(), tmp_path, **encoders)
        with pytest.raises(ValueError, match="is a file; give the path of a folder"):
            store(make_items(), tmp_path / "thesis.tex", **encoders)
        assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]

    def test_ids_and_settings(self, encoders, tmp_path):
        items = {"item_id": [1.5], "text": ["hat"]}
        with pytest.raises(ValueError, match=r"item id 1.5 is a float; only strings and integers"):
            store(items, tmp_path / "store", text_encoder=encoders["text_encoder"])
        with pytest.raises(ValueError, match="shard_items=0 must be at least 1"):
            store(make_items(), tmp_path / "store", shard_items=0, **encoders)
        with pytest.raises(ValueError, match="dtype is torch.int64, but tokens are stored as"):
            store(make_items(), tmp_path / "store", dtype=torch.int64, **encoders)

    @pytest.mark.parametrize("shard_items", [2.0, 0, True])
    def test_items_per_file(self, encoders, tmp_path, shard_items):
        settings = {"text_encoder": encoders["text_encoder"], "progress": False}
        items = {"item_id": ["a", "b", "c"], "text": ["red", "blue", "wool"]}
        with pytest.raises((TypeError, ValueError), match="shard_items=.* must be .*, or None"):
            ItemFeatures.from_items(
                items, path=tmp_path / "store", shard_items=shard_items, **settings
            )
        assert not (tmp_path / "store").exists()
        ItemFeatures.from_items(items, path=tmp_path / "store", shard_items=np.int64(2), **settings)
        assert ItemFeatures.open(tmp_path / "store").num_items == 3

    def test_ids_and_titles_that_utf_8_cannot_hold(self, encoders, tmp_path):
        settings = {"text_encoder": encoders["text_encoder"], "progress": False}
        items = {"item_id": ["a\ud800", "caf\u00e9"], "text": ["odd \udfff", "blue"]}
        with pytest.warns(UserWarning, match="1 of 2 texts could not be read"):
            features = ItemFeatures.from_items(items, path=tmp_path / "store", **settings)
        assert list(features.report.problems["text"]) == ["a\ud800"]
        assert ItemFeatures.open(tmp_path / "store").vocabulary.item_ids == ("a\ud800", "caf\u00e9")

    def test_a_temporary_file_that_another_process_took(self, encoders, tmp_path, monkeypatch):
        def lose(source, target):
            Path(source).unlink()
            raise FileNotFoundError(source)

        monkeypatch.setattr(atomic_files.os, "replace", lose)
        with pytest.raises(OSError, match="temporary file has disappeared. Another process seems"):
            store(make_items(), tmp_path / "store", **encoders)

    def test_no_item_has_it(self, encoders, tmp_path):
        items = {"item_id": [1, 2], "image": [None, b"broken"]}
        message = "none of 2 items has a picture that can be encoded .UnidentifiedImageError"
        with pytest.raises(ValueError, match=message):
            store(items, tmp_path / "store", image_encoder=encoders["image_encoder"])


class TestOpening:
    def test_what_is_no_store(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="it has no features.json"):
            ItemFeatures.open(tmp_path)
        for text, message in {
            "{": "features.json is damaged",
            "[]": "is not a JSON object",
            "{}": "was not written by odmt-sdk",
            '{"kind": "item features", "format_version": 99}': "have format 99.*upgrade",
            '{"kind": "item features", "format_version": 1}': "damaged: dtype=None must",
        }.items():
            (tmp_path / "features.json").write_text(text)
            with pytest.raises(ValueError, match=message):
                ItemFeatures.open(tmp_path)

    @pytest.mark.parametrize(
        "name", [f"items-{COUNT}.safetensors", f"text/index-{COUNT}.safetensors", "report.json"]
    )
    @pytest.mark.parametrize("damage", ["missing", "cut"])
    def test_what_is_damaged(self, reference, tmp_path, name, damage):
        folder = tmp_path / "store"
        shutil.copytree(reference, folder)
        if damage == "missing":
            (folder / name).unlink()
        else:
            (folder / name).write_bytes((folder / name).read_bytes()[:20])
        with pytest.raises(ValueError, match="damaged"):
            ItemFeatures.open(folder)

    @pytest.mark.slow
    def test_a_million_items_in_milliseconds(self, tmp_path):
        count = 1_000_000
        vectors = torch.zeros(count, 1, dtype=torch.float16)
        vectors[7] = 3
        ItemFeatures.from_items(
            {"item_id": range(10**9, 10**9 + count)},
            arrays={"audio": vectors},
            path=tmp_path / "store",
            progress=False,
        )
        seconds = []
        for _ in range(5):
            start = time.perf_counter()
            features = ItemFeatures.open(tmp_path / "store")
            seconds.append(time.perf_counter() - start)
        assert min(seconds) < 0.5  # milliseconds, with room for a busy machine
        assert features.num_items == count
        assert features.vocabulary.rows([10**9 + 7]) == [8]
        assert features.gather(torch.tensor([8]))["audio"].tokens.tolist() == [[[3.0]]]


def test_about_64_files_hold_a_catalogue():
    assert [choose_shard_items(n, 64) for n in (1, 4096, 5000, 100_000)] == [64, 64, 128, 2048]
    assert choose_shard_items(10**7, 64) == 4096
    assert choose_shard_items(100, 512) == 512
