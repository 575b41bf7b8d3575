"""What a page asks for and is told, with a studio that computes nothing."""

import threading

import pytest

from lgm.app.jobs import Jobs
from lgm.app.sessions import FILM, OBJECT, Sessions
from lgm.app.store import Store
from lgm.app.studio import PACKED, PLY, VIDEO
from tests.clock import GIVE_UP_S


class Studio:
    """Writes what it is given."""

    def __init__(self):
        self.gate = threading.Event()
        self.gate.set()
        self.generators = self
        self.missing = ""
        self.films = 0

    def fault(self, kind):
        return self.missing

    def reconstruct(self, job, uploads, background, generated_in=None):
        job.report("reconstructing", 0.5)
        assert self.gate.wait(GIVE_UP_S)
        (job.folder / PLY).write_text(f"{sorted(uploads)} {background} {generated_in}")
        (job.folder / PACKED).write_text("packed")

    def generate(self, job, kind, text, seed, upload, background):
        return [kind, text, seed, upload, background]

    def mesh(self, job):
        raise ValueError("no surface")

    def film(self, job):
        self.films += 1
        (job.folder / VIDEO).write_text("video")


@pytest.fixture
def sessions(tmp_path):
    sessions = Sessions(Store(tmp_path / "work"), Jobs(limit=2), Studio())
    yield sessions
    sessions.studio.gate.set()
    sessions.close()
    sessions.jobs.join()


@pytest.fixture
def uploads(sessions):
    paths = [sessions.store.uploads / f"{number}.png" for number in range(4)]
    for path in paths:
        path.write_text("x")
    return [str(path) for path in paths]


def last(stream):
    *_, end = stream
    assert end.is_done
    return end


def test_four_uploads_are_an_object_with_files(sessions, uploads):
    progress = last(sessions.reconstruct(uploads, "auto"))
    assert (progress.kind, progress.error) == (OBJECT, "")
    path = sessions.file(progress.token, PLY)
    assert path.read_text() == "['back', 'front', 'left', 'right'] auto None"
    assert sessions.file(progress.token, "images") is None
    assert sessions.file(progress.token, "../object.ply") is None
    assert sessions.file(progress.token, VIDEO) is None
    assert sessions.file("a" * 22, PLY) is None


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "http://example.com/a.png", "relative.png", {"path": "x"}, ["x"], 7, "\0"]
)
def test_no_path_but_an_upload_is_taken(sessions, uploads, path):
    progress = last(sessions.reconstruct([*uploads[:3], path], "auto"))
    assert "pload" in progress.error
    assert not any(sessions.store.objects.iterdir())


def test_another_persons_folder_is_no_upload(sessions, uploads):
    token = last(sessions.reconstruct(uploads, "auto")).token
    path = str(sessions.file(token, PLY))
    assert "expired" in last(sessions.reconstruct([path] * 4, "auto")).error


def test_two_get_their_own_and_a_third_a_message(sessions, uploads):
    sessions.studio.gate.clear()
    streams = [sessions.reconstruct(uploads, name) for name in ("one", "two")]
    assert [next(stream).kind for stream in streams] == [OBJECT, OBJECT]
    assert "busy: 2" in last(sessions.reconstruct(uploads, "three")).error
    assert len(list(sessions.store.objects.iterdir())) == 2
    sessions.studio.gate.set()
    tokens = [last(stream).token for stream in streams]
    assert [sessions.file(token, PLY).read_text().split()[-2] for token in tokens] == ["one", "two"]


def test_a_page_that_is_loaded_again_goes_on(sessions, uploads):
    sessions.studio.gate.clear()
    stream = sessions.reconstruct(uploads, "auto")
    token = next(stream).token
    stream.close()  # the page is gone
    resumed = sessions.resume(token)
    assert not next(resumed).is_done
    sessions.studio.gate.set()
    assert last(resumed).token == token
    assert last(sessions.resume(token)).token == token  # and once more, when it is done
    sessions._of_token.clear()
    assert last(sessions.resume(token)).token == token  # its job is forgotten, its files are there
    assert list(sessions.resume("a" * 22)) == []
    assert list(sessions.resume(None)) == []


def test_a_further_file_is_made_once(sessions, uploads):
    token = last(sessions.reconstruct(uploads, "auto")).token
    for _ in range(2):
        progress = last(sessions.film(token))
        assert (progress.kind, progress.token, progress.error) == (FILM, token, "")
    assert sessions.studio.films == 1
    assert sessions.file(token, VIDEO) is not None
    assert "expired" in last(sessions.film("a" * 22)).error
    assert "expired" in last(sessions.mesh({"no": "token"})).error
    assert last(sessions.mesh(token)).error == "No surface"


def test_views_are_generated_from_what_may_be(sessions, uploads):
    assert last(sessions.generate("text", "a cup", 3, None, "auto")).result[:3] == ["text", "a cup", 3]
    assert last(sessions.generate("image", "", 3.0, uploads[0], "auto")).result[2] == 3
    for text, seed, upload, word in (
        ("x" * 501, 0, uploads[0], "500 characters"),
        (7, 0, uploads[0], "characters"),
        ("", -1, uploads[0], "seed"),
        ("", 1.5, uploads[0], "seed"),
        ("", float("nan"), uploads[0], "seed"),
        ("", float("inf"), uploads[0], "seed"),
        ("", None, uploads[0], "seed"),
        ("", 0, None, "Give an image"),
        ("", 0, "/etc/passwd", "upload"),
    ):
        assert word in last(sessions.generate("image", text, seed, upload, "auto")).error
    sessions.studio.missing = "weights"
    assert "no weights" in last(sessions.generate("text", "a cup", 0, None, "auto")).error


def test_what_has_expired_is_forgotten(sessions, uploads, monkeypatch):
    token = last(sessions.reconstruct(uploads, "auto")).token
    sessions.sweep()
    assert sessions.file(token, PLY) is not None
    monkeypatch.setattr(sessions.store, "_keep_s", -1.0)
    sessions.sweep()
    assert sessions.file(token, PLY) is None
    assert list(sessions.resume(token)) == []
