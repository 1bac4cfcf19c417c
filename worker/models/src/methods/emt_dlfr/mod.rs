//! EMT-DLFR: the efficient multimodal transformer with dual-level feature restoration (Sun et al.,
//! IEEE TAC 2023), as its authors' code trains it (`models/missingTask/EMT_DLFR.py`,
//! `models/subNets/EMT.py`, `trains/missingTask/EMT_DLFR.py`).
//!
//! BERT and two LSTMs give each modality a sequence and a vector. In the transformer, the three
//! vectors (the global context) attend to each sequence and each sequence to them. Training sees
//! every sample twice, complete and erased: the vectors of both views attract each other, and what
//! was erased is reconstructed from the sequences of the erased one.

mod config;
mod model;
mod standardize;
mod training;
mod transformer;

pub(super) use training::build;
