"""Shell completion, tried in a real bash, and the facts for a bug report."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from excite.cli.completion import body, fish_body
from excite.cli.main import main


@pytest.fixture(scope="module")
def script() -> str:
    return body()


def completed(script: str, *words: str) -> list[str]:
    """What bash offers for the last of these words."""
    line = " ".join(f"'{word}'" for word in words)
    code = f'{script}\nCOMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _excite; printf "%s\\n" "${{COMPREPLY[@]}}"'
    done = subprocess.run([shutil.which("bash") or "bash", "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.split()


OFFERS = [
    (["excite", "exp"], {"explain", "export"}),
    (["excite", "detect", ""], {"train", "test", "predict"}),
    (["excite", "train", "--warm"], {"--warmup-epochs", "--warmup-steps"}),
    (["excite", "detect", "train", "--frozen"], {"--frozen-stages", "--frozen-norms"}),
    (["excite", "train", "--precision", "b"], {"bf16"}),
    (["excite", "show", "--bib"], {"--bibtex"}),
]


@pytest.mark.parametrize(("words", "offers"), OFFERS)
def test_bash_offers(script: str, words: list[str], offers: set[str]) -> None:
    assert set(completed(script, *words)) == offers


def test_zsh_takes_the_same(capsys: pytest.CaptureFixture[str], script: str) -> None:
    assert main(["completion", "zsh"]) == 0
    out = capsys.readouterr().out
    assert "bashcompinit" in out
    assert out.strip().endswith(script.strip())
    assert main(["completion", "csh"]) == 2
    assert "'bash', 'zsh', 'fish'" in capsys.readouterr().err


def in_shell(shell: str, code: str) -> list[str]:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not on this machine")
    done = subprocess.run([program, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.split()


def test_zsh_reads_it(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["completion", "zsh"]) == 0
    (tmp_path / "script").write_text(capsys.readouterr().out)
    ask = f"cd {tmp_path}; ZDOTDIR={tmp_path} HOME={tmp_path}; source ./script; print $_comps[excite]"
    assert in_shell("zsh", ask) == ["_bash_complete", "-o", "filenames", "-F", "_excite"]


@pytest.mark.parametrize(("words", "offers"), OFFERS)
def test_fish_offers(words: list[str], offers: set[str], tmp_path: Path) -> None:
    (tmp_path / "script").write_text(fish_body())
    line = " ".join(words)
    ask = f"source {tmp_path}/script; complete -C '{line}'"
    assert set(in_shell("fish", ask)) == offers


def test_the_facts_for_a_bug_report(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXCITE_CACHE", "/home/someone/cache")
    assert main(["env", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert {"excite", "python", "torch", "processor", "gpu", "kernels", "[train]", "settings"} <= set(facts)
    assert "someone" not in json.dumps(facts)
    assert main(["env"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(facts)
    assert any(line.startswith("torch ") and facts["torch"] in line for line in lines)
