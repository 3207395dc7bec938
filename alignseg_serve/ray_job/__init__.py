"""`alignseg segment --ray`: millions of images through Ray Data."""

from typing import Literal

MaskFormat = Literal["png", "rle"]  # indexed PNG files, or COCO RLE in the Parquet files of the results
