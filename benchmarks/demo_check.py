"""Checks the demo's artefact as a stranger would: with numpy, scikit-learn and LiteRT, and nothing of Featherweight.

    python benchmarks/demo_check.py [FOLDER] [--ratio 3.5]

FOLDER is what ``featherweight demo --out FOLDER`` made (default: demo-run); where it is missing, that command is run
first, as a process of its own. Both files answer the 800 test digits in LiteRT. The script ends with 1 unless they give
exactly the accuracies that the certificate claims, answer by answer, and the artefact is small enough.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from sklearn.datasets import load_digits

TEST = 800


def test_digits() -> tuple[np.ndarray, np.ndarray]:
    """The demo's test split as a phone holds images, (n, 8, 8, 1) float32, and its labels."""
    pixels, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(pixels))[:TEST]
    return (pixels[order] / 16.0).astype(np.float32).reshape(-1, 8, 8, 1), labels[order]


def answers(path: Path, images: np.ndarray) -> np.ndarray:
    """What a file answers, image by image."""
    interpreter = Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    (entry,), (exit_,) = interpreter.get_input_details(), interpreter.get_output_details()
    found = []
    for image in images:
        interpreter.set_tensor(entry["index"], image[None])
        interpreter.invoke()
        found.append(int(interpreter.get_tensor(exit_["index"]).argmax()))
    return np.array(found)


def compared(run: Path, least_ratio: float) -> list[tuple[str, object, object, bool]]:
    """What is claimed, what is found, and whether they agree."""
    card = json.loads((run / "card.json").read_text(encoding="utf-8"))
    claim, hashes = card["certificate"], card["hashes"]
    paths = {side: run / f"{side}.tflite" for side in ("original", "artefact")}
    images, labels = test_digits()
    right = {side: answers(path, images) == labels for side, path in paths.items()}
    sizes = {side: path.stat().st_size for side, path in paths.items()}
    rows: list[tuple[str, object, object, bool]] = []
    for side, path in paths.items():
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        rows.append((f"SHA-256 of the {side}", hashes[side][:12], sha256[:12], hashes[side] == sha256))
        accuracy = float(right[side].mean())
        rows.append((f"accuracy of the {side}", claim[side], accuracy, claim[side] == accuracy))
    lost = int((right["original"] & ~right["artefact"]).sum())
    gained = int((~right["original"] & right["artefact"]).sum())
    drop, bound, limit = (lost - gained) / TEST, claim["drop_bound"], card["goal"]["max_drop"]
    rows.append(("test samples", claim["samples"], TEST, claim["samples"] == TEST))
    rows.append(("answers lost", claim["lost"], lost, claim["lost"] == lost))
    rows.append(("answers gained", claim["gained"], gained, claim["gained"] == gained))
    rows.append(
        ("goal met", card["met"], f"{drop:.5f} ≤ {bound:.5f} ≤ {limit}", card["met"] and drop <= bound <= limit)
    )
    ratio = sizes["original"] / sizes["artefact"]
    rows.append(("times smaller", f"≥ {least_ratio}", f"{ratio:.2f}", ratio >= least_ratio))
    return rows


def main() -> int:
    """Make the demo where it is missing, check it, and tell."""
    parser = argparse.ArgumentParser(description="Check the demo's artefact with nothing of Featherweight.")
    parser.add_argument("folder", nargs="?", type=Path, default=Path("demo-run"), help="(default: demo-run)")
    parser.add_argument("--ratio", type=float, default=3.5, help="how many times smaller it must be (default: 3.5)")
    args = parser.parse_args()
    if not args.folder.exists():
        print(f"{args.folder} is missing: making it", flush=True)
        subprocess.run([sys.executable, "-m", "featherweight", "demo", "--out", str(args.folder)], check=True)
    rows = compared(args.folder / "run", args.ratio)
    print(f"{'':26} {'claimed':>22} {'found':>30}")
    for what, claimed, found, agree in rows:
        print(f"{what:26} {claimed!s:>22} {found!s:>30}  {'✓' if agree else '✗'}")
    strangers = sorted(name for name in sys.modules if name.partition(".")[0] in ("featherweight", "torch"))
    print(f"loaded of Featherweight: {', '.join(strangers) or 'nothing'}")
    return 0 if all(agree for *_, agree in rows) and not strangers else 1


if __name__ == "__main__":
    sys.exit(main())
