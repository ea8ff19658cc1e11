"""Visitors see their own clips only, and no file outside of their folder."""
from pathlib import Path

import pytest

from magnet_plugin.app.web.visitors import Take, Visitor, Visitors


def add(visitor: Visitor, favourite: bool = False) -> Take:
    name = visitor.new_name()
    for suffix in ("wav", "json", "steps.json"):
        (visitor.folder / f"{name}.{suffix}").write_text(name)
    take = Take(f"{name}.wav", {"settings": f"{name}.json"}, "a reel", "", 1, 1.0, favourite)
    visitor.add(take)
    return take


def test_a_file_is_found_only_with_its_visitors_secret(tmp_path: Path) -> None:
    visitors = Visitors(tmp_path / "visitors", max_kept=3)
    one, other = visitors.open(), visitors.open()
    take = add(one)
    assert visitors.file(one.token, take.audio) == one.folder / take.audio
    assert visitors.file(one.token, f"{take.id}.steps.json") is not None
    assert visitors.file(other.token, take.audio) is None and visitors.file("", take.audio) is None
    (tmp_path / "secret.txt").write_text("x")
    (one.folder / "link.wav").symlink_to(tmp_path / "secret.txt")
    for name in ("../../secret.txt", "..", ".", "", "/etc/passwd", f"../{one.token}/{take.audio}", "%2e%2e/secret.txt",
                 "link.wav", "missing.wav", "a\x00.wav", f"{take.audio}\n"):
        assert visitors.file(one.token, name) is None, name
    assert visitors.file(".", "secret.txt") is None and visitors.file("..", "secret.txt") is None
    assert len(one.token) > 20 and one.token != other.token
    visitors.close(one)
    assert not one.folder.exists() and other.folder.exists() and visitors.file(one.token, take.audio) is None
    visitors.close_all()
    assert len(visitors) == 0 and not other.folder.exists()


def test_the_oldest_clip_that_is_no_favourite_makes_room(tmp_path: Path) -> None:
    visitor = Visitor(tmp_path, max_kept=3)
    first, second, third, fourth = add(visitor, favourite=True), add(visitor), add(visitor), add(visitor)
    assert visitor.takes == [first, third, fourth] and visitor.shown() == [first, fourth, third]
    assert not list(visitor.folder.glob(f"{second.id}*")) and len(list(visitor.folder.iterdir())) == 9
    assert visitor.take(third.id) is third
    with pytest.raises(ValueError, match="does not exist any more"):
        visitor.take(second.id)
    visitor.clear()
    assert visitor.takes == [first] and len(list(visitor.folder.iterdir())) == 3
    visitor.remove(first)
    visitor.remove(first)
    assert not visitor.takes and not list(visitor.folder.iterdir())
