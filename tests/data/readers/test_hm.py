import pytest

from odmt_sdk.data.readers import read_hm

ANN = "000058a12d5b43e67d225668fa1f8d618c13dc232df0cad8ffe7ad4a1091e318"
TRANSACTIONS = (
    "t_dat,customer_id,article_id,price,sales_channel_id\n"
    f"2018-09-21,{ANN},0663713001,0.0508305084745762,2\n"
    f"2018-09-20,{ANN},0108775015,0.0304915254237288,2\n"
    f"2018-09-20,{ANN},0108775015,0.0304915254237288,2\n"
    "2018-09-20,00007d2d,0999999999,0.0152372881355932,1\n"
)
ARTICLES = (
    "article_id,product_code,prod_name,product_type_no,product_type_name,product_group_name,"
    "graphical_appearance_no,graphical_appearance_name,colour_group_code,colour_group_name,"
    "perceived_colour_value_id,perceived_colour_value_name,perceived_colour_master_id,"
    "perceived_colour_master_name,department_no,department_name,index_code,index_name,"
    "index_group_no,index_group_name,section_no,section_name,garment_group_no,"
    "garment_group_name,detail_desc\n"
    "0108775015,0108775,Strap top,253,Vest top,Garment Upper body,1010016,Solid,09,Black,4,Dark,5,"
    "Black,1676,Jersey Basic,A,Ladieswear,1,Ladieswear,16,Womens Everyday Basics,1002,"
    "Jersey Basic,Jersey top with narrow shoulder straps.\n"
    "0663713001,0663713,Atlanta Push Body,283,Underwear body,Underwear,1010016,Solid,09,Black,4,"
    "Dark,5,Black,1338,Expressive Lingerie,B,Lingeries/Tights,1,Ladieswear,61,Womens Lingerie,"
    '1017,"Under-, Nightwear",\n'
)


def write(folder, transactions=TRANSACTIONS, articles=ARTICLES):
    (folder / "transactions_train.csv").write_text(transactions)
    (folder / "articles.csv").write_text(articles)


def check(data):
    interactions, items = data
    assert interactions.user_ids == (ANN, "00007d2d")
    bought = [interactions.item_ids[code] for code in interactions.item_codes]
    assert bought == ["0108775015", "0108775015", "0663713001", "0999999999"]
    assert str(interactions.times[0].astype("datetime64[D]")) == "2018-09-20"
    assert items["item_id"] == ["0108775015", "0663713001", "0999999999"]
    assert items["text"] == [
        "Strap top. Vest top. Black. Jersey top with narrow shoulder straps.",
        "Atlanta Push Body. Underwear body. Black",
        None,
    ]


def test_rows_of_the_competition(tmp_path):
    write(tmp_path)
    picture = tmp_path / "images" / "010" / "0108775015.jpg"
    picture.parent.mkdir(parents=True)
    picture.touch()
    data = read_hm(tmp_path)
    check(data)
    assert data.items["image"] == [picture, None, None]
    assert len(data.interactions.drop_repeats("same_time")) == 3


def test_lost_zeros_come_back(tmp_path):
    """Files saved by a spreadsheet program have article ids as numbers."""
    transactions, articles = (
        text.replace(",0108775015", ",108775015").replace("\n0", "\n").replace(",0663", ",663")
        for text in (TRANSACTIONS, ARTICLES)
    )
    write(tmp_path, transactions.replace(",0999999999", ",999999999"), articles)
    check(read_hm(tmp_path))


def test_nothing_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file of interactions, that is transactions_tr"):
        read_hm(tmp_path)


def test_an_article_with_and_without_its_zeros_is_one(tmp_path):
    lines = TRANSACTIONS.splitlines()
    write(tmp_path, "\n".join([*lines, *(line.replace(",0", ",") for line in lines[1:])]) + "\n")
    interactions = read_hm(tmp_path).interactions
    assert len(set(interactions.item_ids)) == len(interactions.item_ids) == 3
