"""Push the pretrained adapters of the package to your account on the Hugging Face Hub.

python examples/push_adapters.py --namespace me          # dry run
python examples/push_adapters.py --namespace me --push   # after `hf auth login`
"""

import argparse
import shutil
import tempfile
from pathlib import Path

from odmt_sdk import shipped_adapters
from odmt_sdk.hub import make_repository, push_folder


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--namespace", required=True, help="account or organisation")
    parser.add_argument("--push", action="store_true", help="push; without it, only print what")
    parser.add_argument("--private", action="store_true", help="make new repositories private")
    options = parser.parse_args(arguments)

    for adapter in shipped_adapters():
        repo_id = f"{options.namespace}/odmt-{adapter.name.partition(':')[2]}"
        files = sorted(path for path in adapter.folder.iterdir() if path.is_file())
        print(f"{adapter.name} -> {repo_id}, {adapter.num_bytes / 1e6:.1f} MB")
        if not options.push:
            print("  not pushed: " + ", ".join(path.name for path in files))
            continue
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            for path in files:  # copy the files, so that recommendations are bit-identical
                shutil.copyfile(path, folder / path.name)
            card = folder / "README.md"
            text = card.read_text(encoding="utf-8")
            card.write_text(text.replace(adapter.name, repo_id), encoding="utf-8")
            repo_id = make_repository(repo_id, private=options.private or None, token=None)
            print("  " + push_folder(folder, repo_id).commit_url)


if __name__ == "__main__":
    main()
