"""Files with one title per item, such as `17,Cats, dogs and more`."""

from pathlib import Path

from odmt_sdk.text_files import decoded


def read_titles(path: Path) -> dict[str, str]:
    r"""Read the titles of items.

    These files are not valid CSV: a title may have commas without being quoted. Everything after
    the first separator is the title, as in the programs of the data sets' authors.

    Args:
        path: a file with lines "id,title" (.csv) or "id\ttitle" (.tsv). Tabs in a title become
            spaces. A first line such as "item,title" is treated as a header.

    Returns:
        Item id -> title, in file order.

    Raises:
        ValueError: if a line has no separator, or the file is not in UTF-8.
    """
    separator = "," if path.suffix == ".csv" else "\t"
    titles: dict[str, str] = {}
    with decoded(path) as file:
        for number, line in enumerate(file, start=1):
            item_id, found, title = line.strip("\r\n").partition(separator)
            if not found:
                if not line.strip():
                    continue
                raise ValueError(
                    f"{path}, line {number}, has no {separator!r} between id and title: "
                    f"{line[:60].strip()!r}"
                )
            if number == 1 and item_id.strip().lower() in _HEADERS:
                continue
            title = title.replace("\t", " ").strip()
            if len(title) > 1 and title[0] == title[-1] == '"':
                title = title[1:-1].replace('""', '"')
            titles[item_id.strip()] = title
    return titles


_HEADERS = {"item", "item_id", "itemid", "video", "video_id", "videoid", "id"}
