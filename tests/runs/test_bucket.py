import pytest
from etils import epath

from t2i_jax.runs import bucket

ADDRESS = "gs://pictures/runs/tiny"


@pytest.fixture
def there(tmp_path, monkeypatch):
    """A folder in place of the one in the bucket."""
    monkeypatch.setenv("T2I_JAX_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(bucket, "_copies", [])
    folder = tmp_path / "there"
    places = {ADDRESS: epath.Path(folder)}
    monkeypatch.setattr(bucket.epath, "Path", lambda path: places[path])
    return folder


def write(folder, files):
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def read(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_everything_but_checkpoints_is_copied_once(there):
    files = {"run.json": "{}", "frozen/a.safetensors": "numbers"}
    write(there, {**files, "checkpoints/3/x": "weights", "broken/2/x": "weights"})
    here = bucket.local_folder(ADDRESS)
    assert read(here) == files and here.name == "tiny"
    write(there, {"run.json": "other"})
    assert bucket.local_folder(f"{ADDRESS}/") == here and read(here) == files
    assert bucket.checkpoint_folder(ADDRESS) == there / "checkpoints"
    assert bucket.checkpoint_folder(here) == there / "checkpoints"


def test_what_changed_is_uploaded_and_run_json_last(there, monkeypatch):
    there.mkdir()
    here = bucket.local_folder(ADDRESS)
    assert read(here) == {}  # a new run
    write(here, {"run.json": "{}", "z.jsonl": "1\n", "grids/1.png": "a"})
    write(here, {"lock": "process 1", "a.tmp": "half", "incomplete-x/y": "half"})
    sent = []

    make = bucket._transfer

    def transfer(source, target):
        target.parent.mkdir(parents=True, exist_ok=True)  # in a bucket there are no folders to make
        sent.append(target.relative_to(there).as_posix())
        make(source, target)

    monkeypatch.setattr(bucket, "_transfer", transfer)
    bucket.upload(here)
    assert sent == ["grids/1.png", "z.jsonl", "run.json"]
    bucket.upload(here)
    assert len(sent) == 3
    with open(here / "z.jsonl", "a") as file:
        file.write("2\n")
    bucket.upload(here)
    assert sent[3:] == ["z.jsonl"] and read(there)["z.jsonl"] == "1\n2\n"
    monkeypatch.setattr(bucket.hosts, "is_first", lambda: False)
    write(here, {"z.jsonl": "of another process"})
    bucket.upload(here)
    assert len(sent) == 4


def test_a_folder_of_this_machine_stays_where_it_is(tmp_path):
    assert bucket.local_folder(tmp_path) == tmp_path
    assert bucket.checkpoint_folder(tmp_path) == tmp_path / "checkpoints"
    bucket.upload(tmp_path)
    with pytest.raises(ValueError, match="s3://a/b: of buckets, those of Google Cloud Storage"):
        bucket.local_folder("s3://a/b")


def test_a_bucket_that_cannot_be_read_is_named(there):
    there.write_text("a file")
    with pytest.raises(OSError, match=r"there cannot be read \(.*Not a directory"):
        bucket.local_folder(ADDRESS)


def test_a_checkpoint_in_a_bucket_is_complete_with_its_last_file(tmp_path, monkeypatch):
    for name in ("3", "4.orbax-checkpoint-tmp", "notes"):
        (tmp_path / name).mkdir()
    assert [
        name
        for name in ("3", "4.orbax-checkpoint-tmp", "notes", "5")
        if bucket.is_complete(tmp_path / name)
    ] == ["3"]
    monkeypatch.setattr(bucket, "PREFIX", str(tmp_path))
    assert not bucket.is_complete(tmp_path / "3")
    (tmp_path / "3" / bucket.COMPLETE).touch()
    assert bucket.is_complete(tmp_path / "3")
