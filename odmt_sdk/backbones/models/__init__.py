"""Built-in backbones: SASRec, GRU4Rec, NextItNet, HSTU and Mamba-2."""
