import gzip
import json

import pytest

from odmt_sdk.data.readers import read_amazon

HEADER = "user_id,parent_asin,rating,timestamp"
ROWS = [
    "AGKHLEW2SOWHNMFQIJGBECAF7INQ,B081TJ8YS3,5.0,1588615855070",
    "AGKHLEW2SOWHNMFQIJGBECAF7INQ,0439893577,4.0,1588615855000",
    "AEVWAM3YWN5URJVJIZZ6XPD2MKIA,B081TJ8YS3,3.0,1588615855071",
]
REVIEW = {
    "rating": 5.0,
    "title": "Such a lovely scent but not overpowering.",
    "text": "This spray is really nice.",
    "images": [],
    "asin": "B00YQ6X8EO",
    "helpful_vote": 0,
    "verified_purchase": True,
}
PICTURE = "https://m.media-amazon.com/images/I/71i77AuI9xL._SL1500_.jpg"
PRODUCTS = [
    {
        "main_category": "All Beauty",
        "title": "Howard LC0008 Leather Conditioner",
        "average_rating": 4.8,
        "rating_number": 10,
        "features": ["Conditions leather", "8-Ounce (4-Pack)"],
        "description": [],
        "price": None,
        "images": [
            {
                "thumb": "https://t/2.jpg",
                "large": "https://l/2.jpg",
                "variant": "PT01",
                "hi_res": "x",
            },
            {"thumb": "https://t/1.jpg", "large": "l", "variant": "MAIN", "hi_res": PICTURE},
        ],
        "videos": [],
        "store": "Howard Products",
        "categories": [],
        "details": {"Package Dimensions": "7.1 x 5.5 x 3 inches", "UPC": "617390882781"},
        "parent_asin": "B081TJ8YS3",
        "bought_together": None,
    },
    {
        "main_category": "All Beauty",
        "title": "Stamps",
        "features": [],
        "images": {
            "hi_res": [None],
            "large": ["https://l/3.jpg"],
            "thumb": ["t"],
            "variant": ["MAIN"],
        },
        "details": "{}",
        "parent_asin": "0439893577",
    },
    {"title": "Never bought", "parent_asin": "B000000000"},
]


def write_products(folder):
    lines = [json.dumps(product) for product in PRODUCTS]
    (folder / "meta_All_Beauty.jsonl").write_text("\n".join(lines) + "\n")


def check(data):
    interactions, items = data
    assert interactions.user_ids == tuple(row.split(",")[0] for row in (ROWS[0], ROWS[2]))
    bought = [interactions.item_ids[code] for code in interactions.item_codes]
    assert bought == ["0439893577", "B081TJ8YS3", "B081TJ8YS3"]
    assert interactions.times.tolist() == [1588615855000, 1588615855070, 1588615855071]
    assert items["item_id"] == ["B081TJ8YS3", "0439893577"]
    assert items["text"] == [
        "Howard LC0008 Leather Conditioner. Conditions leather. 8-Ounce (4-Pack)",
        "Stamps",
    ]
    assert items["image_url"] == [PICTURE, "https://l/3.jpg"]


def test_ratings(tmp_path):
    write_products(tmp_path)
    (tmp_path / "All_Beauty.csv").write_text("\n".join([HEADER, *ROWS]))
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "0439893577.jpg").touch()
    data = read_amazon(tmp_path, "All_Beauty")
    check(data)
    assert data.items["image"] == [None, tmp_path / "images" / "0439893577.jpg"]


def test_parts_of_a_benchmark_split(tmp_path):
    write_products(tmp_path)
    for part, row in zip(("train", "valid", "test"), ROWS, strict=True):
        with gzip.open(tmp_path / f"All_Beauty.{part}.csv.gz", "wt") as file:
            file.write(f"{HEADER},history\n{row},B0001 B0002\n")
    check(read_amazon(tmp_path, "All_Beauty"))
    (tmp_path / "All_Beauty.test.csv.gz").unlink()
    with pytest.raises(FileNotFoundError, match=r"holds only All_Beauty.train.*training alone is"):
        read_amazon(tmp_path, "All_Beauty")


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_reviews(tmp_path, suffix):
    write_products(tmp_path)
    reviews = []
    for row in ROWS:
        user, product, _rating, time = row.split(",")
        reviews.append({**REVIEW, "user_id": user, "parent_asin": product, "timestamp": int(time)})
    text = "\n".join(map(json.dumps, reviews))
    path = tmp_path / f"All_Beauty.jsonl{suffix}"
    path.write_bytes(gzip.compress(text.encode()) if suffix else text.encode())
    check(read_amazon(tmp_path, "All_Beauty"))


def test_what_is_missing_or_broken(tmp_path):
    with pytest.raises(FileNotFoundError, match="neither All_Beauty.csv nor its parts nor All_Bea"):
        read_amazon(tmp_path, "All_Beauty")
    (tmp_path / "All_Beauty.csv").write_text("\n".join([HEADER, *ROWS]))
    with pytest.raises(FileNotFoundError, match="no metadata, that is meta_All_Beauty.jsonl"):
        read_amazon(tmp_path, "All_Beauty")
    (tmp_path / "meta_All_Beauty.jsonl").write_text('{"parent_asin": "a"}\n{"parent_asin": \n')
    with pytest.raises(
        ValueError, match=r"meta_All_Beauty.jsonl, line 2, is not a JSON object: b'\{\"p"
    ):
        read_amazon(tmp_path, "All_Beauty")


@pytest.mark.parametrize(
    ("product", "text"),
    [
        ({"title": "A mug", "features": "one text"}, "A mug. one text"),
        ({"title": "A mug", "features": ["red", None, ""]}, "A mug. red"),
        ({"title": None, "features": ["red", "round"]}, "red. round"),
    ],
)
def test_features_of_any_kind(tmp_path, product, text):
    (tmp_path / "All_Beauty.csv").write_text("\n".join([HEADER, *ROWS]))
    first = ROWS[0].split(",")[1]
    (tmp_path / "meta_All_Beauty.jsonl").write_text(json.dumps({"parent_asin": first, **product}))
    _, items = read_amazon(tmp_path, "All_Beauty")
    assert items["text"][items["item_id"].index(first)] == text


def test_metadata_of_another_category(tmp_path):
    (tmp_path / "All_Beauty.csv").write_text("\n".join([HEADER, *ROWS]))
    (tmp_path / "meta_All_Beauty.jsonl").write_text('{"parent_asin": "other"}\n')
    with pytest.raises(ValueError, match="describes none of the products of the interactions"):
        read_amazon(tmp_path, "All_Beauty")
