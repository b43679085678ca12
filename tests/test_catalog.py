import subprocess
import sys

import pytest

from tfxfer.handles.catalog import CATALOG, find


def test_names_and_handles_are_unique():
    assert len({e.name for e in CATALOG}) == len({e.handle for e in CATALOG}) == len(CATALOG)


@pytest.mark.parametrize("entry", CATALOG, ids=lambda e: e.name)
def test_a_row_has_what_a_backbone_needs(entry):
    assert entry.source and all(page.startswith("https://") for page in entry.source.split())
    assert entry.licence == ("MIT" if entry.name == "static" else "Apache-2.0")
    sizes = (224, 240, 260, 300, 384) if entry.takes == "image" else (0,)
    assert entry.image_size in sizes and entry.value_range in ((0.0, 1.0), (-1.0, 1.0))
    assert entry.features in (256, 384, 768, 1024, 1280, 2048)
    assert entry.parameters is None or entry.parameters > 1_000_000
    assert entry.top1 is None or 60 < entry.top1 < 90
    assert entry.offline != entry.handle.startswith("https://")


@pytest.mark.parametrize("entry", [e for e in CATALOG if not e.offline], ids=lambda e: e.name)
def test_a_row_of_the_hub_names_the_page_of_its_own_handle(entry):
    publisher, *path = entry.handle.removeprefix("https://tfhub.dev/").split("/")
    page = entry.source.split()[0]
    assert f"/assets/docs/{publisher}/" in page and page.endswith(f"/{'/'.join(path)}.md")


def test_a_row_is_found_by_its_name_and_by_its_url():
    entry = find("mobilenet-v2")
    assert (
        entry is not None
        and entry.handle
        == "https://tfhub.dev/google/imagenet/mobilenet_v2_100_224/feature_vector/5"
    )
    assert find(entry.handle) == find(entry.handle + "/") == entry
    assert find("mobilenet") is None and find("lite0") is None and find("") is None


def test_the_catalog_is_listed_without_tensorflow():
    code = (
        "import sys; from tfxfer.handles.catalog import CATALOG; "
        "sys.exit('tensorflow' in sys.modules or 'numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
