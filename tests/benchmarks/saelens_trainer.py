"""Trains SAELens's TopK on the vectors in a file: run by `sae.py` in an environment that has SAELens, never imported.

``python saelens_trainer.py VECTORS.safetensors D_SAE K BATCH STEPS LR``; prints CPU seconds of the training and
the variance left unexplained on the last vectors as JSON.
"""

import itertools
import json
import sys
import time

import torch
from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig
from sae_lens.config import LoggingConfig, SAETrainerConfig
from sae_lens.training.sae_trainer import SAETrainer
from safetensors.torch import load_file

torch.set_num_threads(1)
torch.manual_seed(0)
path, d_sae, k, batch, steps, rate = sys.argv[1:]
vectors = load_file(path)["vectors"]
train, judged = vectors[:-2048], vectors[-2048:]
config = TopKTrainingSAEConfig(d_in=vectors.shape[1], d_sae=int(d_sae), k=int(k), device="cpu")
sae = TopKTrainingSAE(config)
trainer = SAETrainer(
    cfg=SAETrainerConfig(
        total_training_samples=int(steps) * int(batch),
        train_batch_size_samples=int(batch),
        lr=float(rate),
        lr_end=float(rate) / 10,
        logger=LoggingConfig(log_to_wandb=False),
    ),
    sae=sae,
    data_provider=itertools.cycle(train.split(int(batch))[: len(train) // int(batch)]),
)
start = time.process_time()
trainer.fit()
spent = time.process_time() - start
with torch.no_grad():
    left = judged - sae.decode(sae.encode(judged))
unexplained = float(left.square().sum() / (judged - judged.mean(0)).square().sum())
print(json.dumps({"seconds": spent, "unexplained": unexplained}))
