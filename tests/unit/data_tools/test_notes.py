"""Notes on screen: what is lost there, apart from what hardly any render shows."""

from __future__ import annotations

from data_tools.shared.notes import NoteCounts, features_of


def test_normal_maps_and_animations_are_counted_apart():
    counts = NoteCounts()
    assert counts.summary() == ""
    counts.add(["drawn without: animation (12), normal map (3)"])
    assert counts.summary() == "drawn without animation 1, normal map 1"
    counts.add(
        [
            "drawn without: normal map (1), transmission (2)",
            "texture 'a' not found; its material's colour is used",
        ]
    )
    counts.add(["drawn without: normal map (1)", "texture 'b' not found; its material's colour is used"])
    assert counts.summary() == (
        "2 with notes (missing texture 2, without transmission 1); drawn without normal map 3, animation 1"
    )


def test_features_are_those_of_the_note():
    assert features_of("drawn without: diffuse transmission (2), volume (1)") == [
        "diffuse transmission",
        "volume",
    ]
    assert features_of("texture 'drawn with' not found; grey is used") == []
