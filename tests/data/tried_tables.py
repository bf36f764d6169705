"""Tables that were tried: twenty images of two classes, listed in many ways."""

from __future__ import annotations

import gzip
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from trials import Make, Trial, count

HEADER = "path,label,split"
ROWS = [
    f"{n}.png,{('ill', 'well')[n % 2]},{('train', 'val', 'test', 'train')[n // 2 % 4]}"
    for n in range(20)
]
PLAIN = "\n".join([HEADER, *ROWS]) + "\n"


def table(text: str | Callable[[Path], str], name: str = "labels.csv", images: int = 20) -> Make:
    """Images 0.png, a b/0.png, and so on, and a table of this text."""

    def write(root: Path) -> None:
        (root / "a b").mkdir()
        for number in range(images):
            values = np.random.default_rng(number).integers(0, 256, (64, 64), np.uint8)
            Image.fromarray(values).save(root / f"{number}.png")
            Image.fromarray(values[::-1]).save(root / "a b" / f"{number}.png")
        content = (text(root) if callable(text) else text).encode()
        (root / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)

    return write


def changed(line: int, row: str) -> str:
    """The plain table with another row."""
    rows = PLAIN.split("\n")
    rows[line - 1] = row
    return "\n".join(rows)


def tried(
    what: str,
    text: str | Callable[[Path], str],
    reads: bool = True,
    *words: str,
    name: str = "labels.csv",
    images: int = 20,
) -> Trial:
    """A table with this text."""
    return Trial(what, table(text, name, images), reads, ("data=csv", *words), count)


def indexed() -> str:
    return "\n".join([f",{HEADER}", *(f"{n},{row}" for n, row in enumerate(ROWS))]) + "\n"


def labelled(name: Callable[[int], str], images: int = 20) -> str:
    rows = [f"{n}.png,{name(n)},{('train', 'test')[n // 2 % 2]}" for n in range(images)]
    return "\n".join([HEADER, *rows]) + "\n"


def latin(root: Path) -> None:
    table(PLAIN)(root)
    (root / "labels.csv").write_bytes(PLAIN.replace("ill", "böse").encode("latin-1"))


def workbook(name: str, *parts: str) -> Make:
    """A table that a spreadsheet program saved: a zip archive of parts, or of none what .xls is."""

    def write(root: Path) -> None:
        table(PLAIN)(root)
        if not parts:
            (root / name).write_bytes(bytes.fromhex("d0cf11e0a1b11ae1") + bytes(504))
            return
        with zipfile.ZipFile(root / name, "w", zipfile.ZIP_DEFLATED) as file:
            for part in parts:
                file.writestr(zipfile.ZipInfo(part), f"<sheetData>{PLAIN}</sheetData>")

    return write


XLSX = ("[Content_Types].xml", "xl/worksheets/sheet1.xml")
ODS = ("mimetype", "content.xml")


def saved(what: str, name: str, *parts: str) -> Trial:
    """A workbook by this name."""
    words = ("data=csv", *([] if name == "labels.csv" else [f"data.csv={name}"]))
    return Trial(what, workbook(name, *parts), False, words, count)


MANY = ["Effusion", "Mass", "Effusion|Mass", "No Finding"]
FINDINGS = "\n".join([
    "path,Effusion,Mass,split",
    *(
        f"{n}.png,{n % 2},{('', '0', '1')[n // 2 % 3]},{('train', 'test')[n // 10]}"
        for n in range(20)
    ),
]) + "\n"  # fmt: skip
BOTH = "data.findings=[Effusion,Mass]"

TABLES = [
    tried("`path,label,split`", PLAIN),
    tried("a byte order mark (Excel's CSV UTF-8)", "\ufeff" + PLAIN),
    tried("lines that end in CRLF, empty rows at the end",
          PLAIN.replace("\n", "\r\n") + ",,\r\n\r\n"),
    tried("semicolons", PLAIN.replace(",", ";")),
    tried("tabs", PLAIN.replace(",", "\t")),
    tried("`labels.csv.gz`", PLAIN, True, "data.csv=labels.csv.gz", name="labels.csv.gz"),
    tried("pandas' index column", indexed()),
    tried("`Path,Label,Split`", PLAIN.replace(HEADER, "Path,Label,Split")),
    tried("`TRAIN`, `Test`", PLAIN.replace("train", "TRAIN").replace("test", "Test")),
    tried("labels 0.0 and 1.0", labelled(lambda n: f"{n % 2}.0")),
    tried("labels 0.5 and 1.0", labelled(lambda n: ("0.5", "1.0")[n % 2])),
    tried("a comma in a name, in quotes", changed(2, '"0.png",ill,train')),
    tried("a comma in a name, without quotes", changed(2, "a, b.png,ill,train"), False),
    tried("back-slashes, `a b\\0.png`", PLAIN.replace("\n", "\na b\\")[: -len("a b\\")]),
    tried("absolute paths below `data.root`",
          lambda root: PLAIN.replace("\n", f"\n{root}/")[: -len(f"{root}/")]),
    tried("an absolute path elsewhere", changed(2, "/elsewhere/0.png,ill,train"), False),
    tried("`../0.png`", changed(2, "../0.png,ill,train"), False),
    tried("`C:\\0.png`", changed(2, "C:\\0.png,ill,train"), False),
    tried("paths without an ending", PLAIN.replace(".png", "")),
    tried("an image that is not there", changed(2, "none.png,ill,train"), False),
    tried("an image listed twice", PLAIN + "0.png,well,train\n", False),
    tried("an empty label", changed(2, "0.png,,train"), False),
    tried("an empty path", changed(2, ",ill,train"), False),
    tried("a split `dev`", changed(2, "0.png,ill,dev"), False),
    tried("a patient in two splits", PLAIN.replace("split\n", "split,patient\n")
          .replace(",train\n", ",train,P1\n").replace(",val\n", ",val,P2\n")
          .replace(",test\n", ",test,P1\n")),
    tried("a label `Effusion|Mass`", labelled(lambda n: MANY[n % 4]), False),
    tried("the same", labelled(lambda n: MANY[n % 4]), True, "data.task=multilabel"),
    tried("`path,Effusion,Mass`, each 1, 0 or empty", FINDINGS, True, "data.task=multilabel", BOTH),
    tried("the same with a 2", FINDINGS.replace("1.png,1", "1.png,2"), False,
          "data.task=multilabel", BOTH),
    tried("51 classes", labelled(lambda n: f"c{n % 51}", 104), False, images=104),
    tried("the same", labelled(lambda n: f"c{n // 2 % 51}", 208), True, "data.many_classes=true",
          images=208),
    tried("names in the column label", labelled(lambda n: f"scan {n // 9 * n}"), False),
    tried("a column label that is missing", PLAIN.replace("label", "class"), False),
    tried("two columns label", PLAIN.replace("split", "label"), False),
    tried("a header alone", HEADER + "\n", False),
    Trial("a table in Latin-1", latin, False, ("data=csv",), count),
    saved("an Excel workbook named `.csv`", "labels.csv", *XLSX),
    saved("an Excel workbook", "labels.xlsx", *XLSX),
    saved("an old Excel workbook", "labels.xls"),
    saved("an OpenDocument workbook", "labels.ods", *ODS),
    saved("a zip archive of other files named `.csv`", "labels.csv", "labels"),
    tried("no such table", PLAIN, False, "data.csv=other.csv"),
]  # fmt: skip
