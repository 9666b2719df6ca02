"""Demonstration on the photographs of this directory: compress, classify the bitstream, decode; writes out/."""

from __future__ import annotations

import io
import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from rich import box
from rich.console import Console
from rich.table import Table

from dcu import Classifier, Codec
from dcu.image import ImageArray, psnr, read_image

OUT = Path("out")
MARGIN, LINE = 8, 18
FORMATS: dict[str, dict[str, int]] = {
    "AVIF": {"quality": 0, "speed": 0},
    "WebP": {"quality": 0, "method": 6},
    "JPEG": {"quality": 1},
}


def smallest(image: ImageArray, format: str) -> int:
    """Bytes of the smallest file of this size that a format can write: lowest quality, most effort."""
    out = io.BytesIO()
    Image.fromarray(image).save(out, format, **FORMATS[format])
    return len(out.getvalue())


def side_by_side(image: ImageArray, decoded: ImageArray, captions: tuple[str, str]) -> Image.Image:
    """Original and decoded image with a line of text under each."""
    height, width = image.shape[:2]
    sheet = Image.new("RGB", (2 * width + 3 * MARGIN, height + 2 * MARGIN + LINE), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for column, (half, caption) in enumerate(zip((image, decoded), captions, strict=True)):
        left = MARGIN + column * (width + MARGIN)
        sheet.paste(Image.fromarray(half), (left, MARGIN))
        draw.text((left, height + MARGIN + 2), caption, fill="black", font=font)
    return sheet


def main() -> None:
    """Compress, classify and decode each sample; print a table; write streams, images and one sheet."""
    OUT.mkdir(exist_ok=True)
    codec, classifier = Codec.load(), Classifier.load()
    caption = "AVIF, WebP, JPEG: bytes of the smallest file of this size that each of them can write"
    title = "Six photographs, classified from their bitstreams"
    table = Table(title=title, caption=caption, box=box.SIMPLE, pad_edge=False, collapse_padding=True)
    for heading in ("photograph", "bytes", "bpp", "PSNR (dB)", *FORMATS, "predicted label"):
        table.add_column(
            heading, justify="left" if heading in ("photograph", "predicted label") else "right", no_wrap=True
        )
    sheets = []
    for path in sorted(Path(__file__).parent.glob("*.jpg")):
        image = read_image(path.read_bytes())
        data = codec.compress(image)
        best = classifier(data).predictions[0]
        decoded = codec.decode(data)
        (OUT / f"{path.stem}.bin").write_bytes(data)
        Image.fromarray(decoded).save(OUT / f"{path.stem}.png")
        height, width = image.shape[:2]
        predicted = f"{best.label} ({100 * best.probability:.0f} %)"
        others = [str(smallest(image, format)) for format in FORMATS]
        bpp, quality = f"{8 * len(data) / (width * height):.3f}", f"{psnr(image, decoded):.1f}"
        table.add_row(path.stem, str(len(data)), bpp, quality, *others, predicted)
        sheets.append(side_by_side(image, decoded, (path.name, f"{len(data)} bytes: {predicted}")))
    write_sheet(sheets)
    console = Console() if sys.stdout.isatty() else Console(width=110)
    console.print(table)
    console.print(f"bitstreams and images are in {OUT}/; all of them side by side: {OUT / 'demo.png'}")


def write_sheet(sheets: list[Image.Image]) -> None:
    """All samples on one image, two a row."""
    rows = [sheets[index : index + 2] for index in range(0, len(sheets), 2)]
    heights = [max(sheet.height for sheet in row) for row in rows]
    width = max(sheet.width for sheet in sheets)
    whole = Image.new("RGB", (2 * width, sum(heights)), "white")
    for index, row in enumerate(rows):
        for column, sheet in enumerate(row):
            whole.paste(sheet, (column * width, sum(heights[:index])))
    whole.save(OUT / "demo.png")


if __name__ == "__main__":
    main()
