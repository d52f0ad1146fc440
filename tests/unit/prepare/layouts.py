"""Tiny sets in the real layouts of the public ones, made of any pictures."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

AsBytes = Callable[..., bytes]


def put(folder: Path, name: str, data: bytes | str) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())


def fairface(folder: Path, data: Callable[[int], bytes]) -> Path:
    """Three labelled photos in "train", two in "val"."""
    header = "file,age,gender,race,service_test\n"
    train = "train/1.jpg,50-59,Male,East Asian,True\ntrain/2.jpg,30-39,Female,Indian,False\n"
    train += "train/3.jpg,more than 70,Female,Black,False\n"
    val = "val/1.jpg,3-9,Male,Latino_Hispanic,True\nval/2.jpg,20-29,Female,White,False\n"
    put(folder, "fairface_label_train.csv", header + train)
    put(folder, "fairface_label_val.csv", header + val)
    for i, name in enumerate(["train/1.jpg", "train/2.jpg", "train/3.jpg", "val/1.jpg", "val/2.jpg"]):
        put(folder, name, data(i))
    return folder


def celebahq(folder: Path, data: Callable[[int], bytes], as_bytes: AsBytes) -> Path:
    """Three photos of two people; the first has masks: skin on the left half, hair over its upper quarter."""
    put(
        folder,
        "CelebA-HQ-to-CelebA-mapping.txt",
        "idx     orig_idx    orig_file\n0           119613      119614.jpg\n"
        "1           99094       099095.jpg\n2001        200121      200122.jpg\n",
    )
    put(folder, "identity_CelebA.txt", "099095.jpg 12\n119614.jpg 2880\n200122.jpg 2880\n000001.jpg 7\n")
    put(
        folder,
        "CelebAMask-HQ-attribute-anno.txt",
        "30000\n5_o_Clock_Shadow Male Young \n0.jpg  -1 -1 1 \n1.jpg  1 1 -1 \n2001.jpg -1 -1 1 \n",
    )
    for i, name in enumerate([0, 1, 2001]):
        put(folder, f"CelebA-HQ-img/{name}.jpg", data(i))
    skin, hair = np.zeros((512, 512, 3), np.uint8), np.zeros((512, 512, 3), np.uint8)
    skin[:, :256], hair[:128] = 255, 255
    put(folder, "CelebAMask-HQ-mask-anno/0/00000_skin.png", as_bytes(skin))
    put(folder, "CelebAMask-HQ-mask-anno/0/00000_hair.png", as_bytes(hair))
    put(folder, "CelebAMask-HQ-mask-anno/1/02001_l_brow.png", as_bytes(skin))
    return folder


def ffhq(folder: Path, data: Callable[[int], bytes], *, table: bool = True) -> Path:
    """Photos 0, 1 and 1001 with their entries in the JSON."""
    entries = {}
    for i, (number, part) in enumerate([(0, "training"), (1, "training"), (1001, "validation")]):
        file = f"images1024x1024/{number // 1000 * 1000:05d}/{number:05d}.png"
        put(folder, file, data(i))
        entries[str(number)] = {
            "category": part,
            "metadata": {
                "photo_url": f"https://www.flickr.com/photos/x/{number}/",
                "author": f"Jérémy {number}",
                "country": "",
                "license": "Attribution-NonCommercial License" if number else "Public Domain Mark",
                "license_url": "https://creativecommons.org/",
            },
            "image": {"file_path": file, "pixel_size": [1024, 1024]},
            "thumbnail": {"file_path": file.replace("images1024x1024", "thumbnails128x128")},
            "in_the_wild": {"file_path": file.replace("images1024x1024", "in-the-wild-images")},
        }
    if table:
        put(folder, "ffhq-dataset-v2.json", json.dumps(entries))
    return folder


def parquet(folder: Path, data: Callable[[int], bytes]) -> Path:
    """As `datasets` pushes a set with an Image and a ClassLabel column: five rows and one."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    features = {
        "image": {"_type": "Image"},
        "race": {"names": ["East Asian", "Indian", "Black"], "_type": "ClassLabel"},
        "gender": {"names": ["Male", "Female"], "_type": "ClassLabel"},
        "who": {"dtype": "int64", "_type": "Value"},
    }
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema(
        [("image", kind), ("race", pa.int64()), ("gender", pa.int64()), ("who", pa.int64())],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    (folder / "data").mkdir(parents=True)
    for name, rows in (("train-00000-of-00001", range(5)), ("test-00000-of-00001", range(5, 6))):
        table = pa.Table.from_pylist(
            [
                {"image": {"bytes": data(i), "path": None}, "race": i % 3, "gender": i % 2, "who": i // 2}
                for i in rows
            ],
            schema=schema,
        )
        pq.write_table(table, folder / "data" / f"{name}.parquet", row_group_size=2)
    return folder
