"""Train a text encoder together with the recommender, by LoRA, on a small drawn shop.

The example generates its own data and needs nothing but the package with its extras peft and train:

    python examples/train_encoders.py
"""

import tempfile
from pathlib import Path

from peft import LoraConfig

from odmt_sdk import (
    Interactions,
    ItemFeatures,
    ODMTConfig,
    ODMTWrapper,
    SASRec,
    TrainableText,
    fit,
    leave_one_out,
    make_shop,
)
from odmt_sdk.toy_shop import tiny_text_encoder

shop = make_shop(num_items=50, num_users=60)
encoder = tiny_text_encoder(shop.items["title"], width=16)  # yours: "all-MiniLM-L6-v2", ...

# 1. Frozen features define the width and the moments of the tokens, and which texts are missing.
features = ItemFeatures.from_items(
    shop.items, text="title", text_encoder=encoder, progress=False
).standardize()
split = leave_one_out(
    Interactions.from_table(shop.interactions), vocabulary=features.vocabulary, max_seq_length=8
)


# 2. The encoder replaces the frozen features. Only its LoRA layers are trained.
def trainable_text() -> TrainableText:
    lora = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear")
    return TrainableText(encoder, shop.items, text="title", lora=lora)


config = ODMTConfig(max_seq_length=8)
model = ODMTWrapper(
    SASRec(16, max_seq_length=8), features, config, encoders={"text": trainable_text()}
)

with tempfile.TemporaryDirectory() as folder:
    adapter = Path(folder) / "adapter"
    # 3. A small learning rate for the encoder, the usual one for the rest.
    result = fit(
        model,
        split,
        adapter,
        epochs=2,
        learning_rate=2e-3,
        encoder_learning_rate=2e-4,
        disable_tqdm=True,
        use_cpu=True,
    )
    print(f"ndcg@10: {result.test['ndcg@10']:.3f}")
    history = list(shop.items["item_id"][:3])
    expected = model.recommend([history], k=3).item_ids

    # 4. The adapter has the LoRA weights. Pass the encoder to train further or to add items.
    again = ODMTWrapper.from_pretrained(
        adapter, item_features=features, encoders={"text": trainable_text()}
    )
    assert again.recommend([history], k=3).item_ids == expected

    # 5. Recommending does not need the encoder.
    served = ODMTWrapper.from_pretrained(adapter)
    assert served.recommend([history], k=3).item_ids == expected
    weights = list(model.encoders.parameters())
    lora = sum(weight.numel() for weight in weights if weight.requires_grad)
    whole = sum(weight.numel() for weight in weights)
    print(f"trained {lora:,} of the {whole:,} weights of the encoder; the adapter loads without it")
