"""A training that two processes share; Lightning starts the second. Run as a program."""

import hashlib
import json
import os
import sys
from pathlib import Path

import torch
from test_fit import few

import geopeft_nb as gp

if __name__ == "__main__":
    torch.set_num_threads(1)
    data = few()
    model = gp.attach(gp.build_model(gp.load_backbone("geopeft_tiny"), data), "lora")
    run = gp.fit(
        model, data, epochs=2, batch_size=2, device="cpu", strategy="ddp", devices=2,
        dashboard=False, out=sys.argv[1],
    )  # fmt: skip
    digest = hashlib.sha256()
    for weight in run.model.parameters():
        digest.update(weight.detach().numpy().tobytes())
    end = {
        "rank": int(os.environ.get("LOCAL_RANK", 0)), "steps": len(run.history),
        "weights": digest.hexdigest(),
    }  # fmt: skip
    # A file each: lines that two processes print can run together.
    Path(sys.argv[1]).with_name(f"{end['rank']}.json").write_text(json.dumps(end), encoding="utf-8")
