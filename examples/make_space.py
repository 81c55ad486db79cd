"""Make a folder for a Hugging Face Space that shows a model in the browser.

Nothing is uploaded. The folder also runs offline: `python outputs/space/app.py`.
"""

import argparse
from pathlib import Path

from odmt_sdk.demo import make_space


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("outputs/space"))
    parser.add_argument("--adapter", help="a folder or repository; left out: the drawn shop")
    parser.add_argument("--items", help="table with item_id, titles and pictures")
    parser.add_argument("--image-folder", help="folder of the pictures")
    parser.add_argument("--title", help="name of the Space")
    parser.add_argument("--license", default="apache-2.0", help="license of adapter and items")
    arguments = parser.parse_args()

    folder = make_space(
        arguments.output,
        arguments.adapter,
        arguments.items,
        arguments.image_folder,
        title=arguments.title,
        license=arguments.license,
    )
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"{folder}: {size / 1e6:.1f} MB. Try it: python {folder / 'app.py'}")


if __name__ == "__main__":
    main()
