"""Published runtimes of MLServer 1.x and models for them.

`install` installs the packages without their requirements into a folder ignored by git, which a
server receives in PYTHONPATH; all other packages come from the tests' environment. `python
published.py FOLDER` trains the models.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

RUNTIMES = [f"mlserver-{name}==1.7.1" for name in ("sklearn", "lightgbm", "catboost", "xgboost")]
# The build of xgboost without its GPU libraries, which are some 300 MB.
LIBRARIES = ["lightgbm", "catboost", "xgboost-cpu"]
INSTALL_LIMIT = 300
_CACHE = Path(__file__).resolve().parents[2] / ".venvs"


class IndexUnreachable(Exception):
    """There is no package index to install from."""


def install(packages: Sequence[str] = (*RUNTIMES, *LIBRARIES), name: str = "published") -> Path:
    """The folder with the packages; installed the first time.

    Args:
        packages: What to install, without requirements.
        name: First part of the folder's name.

    Raises:
        IndexUnreachable: the packages are not here yet, and there is no index.
        AssertionError: the index is there, but the packages could not be installed.
    """
    content = " ".join([sys.version, *packages])
    folder = _CACHE / f"{name}-{hashlib.sha256(content.encode()).hexdigest()[:12]}"
    if folder.is_dir():
        return folder
    _CACHE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=_CACHE, prefix="installing-") as work:
        _pip(["--target", f"{work}/packages", *packages])
        try:
            os.rename(f"{work}/packages", folder)
        except OSError:
            assert folder.is_dir()  # another test process was faster
    return folder


def _pip(options: list[str]) -> None:
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--retries",
        "1",
        "--timeout",
        "15",
    ]
    done = subprocess.run(
        [*command, "--disable-pip-version-check", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=INSTALL_LIMIT,
        check=False,
    )
    if done.returncode and ("from versions: none" in done.stdout or "Connection" in done.stdout):
        raise IndexUnreachable(done.stdout.strip().splitlines()[-1])
    assert done.returncode == 0, done.stdout


def train(folder: Path, packages: Path) -> dict[str, Any]:
    """Train the models below `folder`. Returns their own predictions by kind."""
    env = {**os.environ, "PYTHONPATH": str(packages)}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", __file__, str(folder)],
        cwd=folder,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    answers: dict[str, Any] = json.loads((folder / "answers.json").read_text())
    return answers


# -- the training process --


def main(folder: Path) -> None:
    import catboost
    import joblib
    import lightgbm
    import xgboost
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression
    from sklearn.tree import DecisionTreeClassifier

    features, labels = load_iris(return_X_y=True)
    rows = features[::30]
    answers: dict[str, Any] = {"rows": rows.tolist()}

    first, second = (
        LogisticRegression(max_iter=500),
        DecisionTreeClassifier(max_depth=1, random_state=0),
    )
    for version, estimator in (("1", first), ("2", second)):
        estimator.fit(features, labels)
        _make(folder / f"sklearn-{version}")
        joblib.dump(estimator, folder / f"sklearn-{version}" / "model.joblib")
        answers[f"sklearn-{version}"] = estimator.predict(rows).tolist()
        answers[f"sklearn-{version}-proba"] = estimator.predict_proba(rows).tolist()

    booster = lightgbm.LGBMClassifier(n_estimators=5, verbose=-1).fit(features, labels).booster_
    booster.save_model(_make(folder / "lightgbm") / "model.bst")
    answers["lightgbm"] = booster.predict(rows).tolist()

    cat = catboost.CatBoostClassifier(iterations=5, verbose=False, allow_writing_files=False).fit(
        features, labels
    )
    cat.save_model(str(_make(folder / "catboost") / "model.cbm"))
    answers["catboost"] = cat.predict(rows).ravel().tolist()

    gradient = xgboost.XGBClassifier(n_estimators=5).fit(features, labels)
    gradient.save_model(_make(folder / "xgboost") / "model.json")
    answers["xgboost"] = gradient.predict(rows).tolist()
    answers["xgboost-proba"] = gradient.predict_proba(rows).tolist()
    (folder / "answers.json").write_text(json.dumps(answers))


def _make(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
