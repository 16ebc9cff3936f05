"""Progress: one line when piped, nothing when quiet, and brackets stay brackets."""

from headstart.progress import console, say, track


def test_a_piped_stage_ends_with_one_line(capsys):
    console.cache_clear()
    with track("reading photos", 5) as advance:
        advance(2)
        advance(3)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("reading photos: 5 images in ")


def test_a_quiet_stage_says_nothing(capsys):
    console.cache_clear()
    with track("reading photos", 5, quiet=True) as advance:
        advance(5)
    assert capsys.readouterr().out == ""


def test_square_brackets_in_names_are_printed_as_they_are(capsys):
    console.cache_clear()
    say("photos [red]/1.jpg")
    assert "[red]" in capsys.readouterr().out
